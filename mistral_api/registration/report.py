"""How registered services are, in the same words for every service manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
