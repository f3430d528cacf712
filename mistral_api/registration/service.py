"""The two services that are registered, and the state that every service manager reports about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mistral_api
from mistral_api.system.exit_codes import FINAL_FOR_SUPERVISOR, ExitCode, ServiceExitCode

# The folder that holds the package, .env and the migrations: services run in it.
PROJECT = Path(mistral_api.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Service:
    """One process that a service manager runs, ``python -m module arguments``, and restarts without the other one.

    After one of the exit codes in ``final``, and after 0, starting it again would help nobody. ``log_name`` is the name
    of its file in ``DATA_DIR/logs``.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    final: tuple[ExitCode, ...] = ()
    log_name: str = "api"


API = Service("mistral-api", "Mistral Local API", "mistral_api.serving", ("--api-only",))
SUPERVISOR = Service(
    "mistral-api-supervisor",
    "Model server of Mistral Local API, under its supervisor",
    "mistral_api.supervisor",
    final=FINAL_FOR_SUPERVISOR,
    log_name="supervisor",
)
SERVICES = (SUPERVISOR, API)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of one service in the service manager's own word, and details for people."""

    name: str
    state: str
    code: ServiceExitCode
    detail: str = ""


def exit_code(states: Sequence[ServiceState]) -> ServiceExitCode:
    """Return the worst code of the services."""
    return max((state.code for state in states), default=ServiceExitCode.UNKNOWN)


class RegistrationError(RuntimeError):
    """A service cannot be installed, removed or queried; the message is one sentence for the operator."""
