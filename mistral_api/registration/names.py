"""The two services, and how each is run: each may be restarted without the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mistral_api

# The folder that holds the package, ``.env`` and the migrations: services run in it.
PROJECT = Path(mistral_api.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Service:
    """One process that the service manager runs: ``python -m module arguments``.

    ``final`` are the exit codes, 0 aside, after which starting it again would help nobody.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    final: tuple[int, ...] = ()


API = Service("mistral-api", "Mistral Local API", "mistral_api.serving", ("--api-only",))
SUPERVISOR = Service(
    "mistral-api-supervisor",
    "Model server of Mistral Local API, under its supervisor",
    "mistral_api.supervisor",
    final=(2, 3),  # it cannot start, and has said why; it has given the model server up
)
SERVICES = (SUPERVISOR, API)
