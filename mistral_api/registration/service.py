"""The two services, their state, their exit codes.

The two services, and how each is run: each may be restarted without the other.

How registered services are, in the same words for every service manager.

What keeps the server from being registered.
"""

from __future__ import annotations

from collections.abc import Sequence
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


# The exit codes of ``systemctl status`` (LSB): running; not running; not installed, or nobody knows.
RUNNING, NOT_RUNNING, UNKNOWN = 0, 3, 4


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: its state in the service manager's own word, and what else there is to say."""

    name: str
    state: str
    code: int
    detail: str = ""


def exit_code(states: Sequence[ServiceState]) -> int:
    """The worst of the services' codes."""
    return max((state.code for state in states), default=UNKNOWN)


class RegistrationError(RuntimeError):
    """The service cannot be installed, removed or asked; the message is one sentence for the operator."""
