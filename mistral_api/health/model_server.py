"""The model server's part of ``/health``: what its supervisor says, checked against what it answers."""

from __future__ import annotations

from typing import Any

from mistral_api.errors import ModelServerError
from mistral_api.inference.client import ModelServerClient
from mistral_api.settings import Settings
from mistral_api.supervisor.files import MAIN
from mistral_api.supervisor.states import State
from mistral_api.supervisor.status import ModelServerStatus, read_status

# What an answer (or none) of the model server means where nobody supervises it.
_STATES = {"ready": State.READY, "loading": State.LOADING, "unreachable": State.STOPPED}


def model_server_health(
    settings: Settings, server: ModelServerClient, names: list[str], which: str = MAIN
) -> dict[str, Any]:
    """The ``model_server`` object of the contract; ``settings`` are those of that server, ``which`` its name."""
    probe = server.probe()
    status = read_status(settings.data_dir, which) if settings.supervised else None
    return {
        "state": _state(probe, status),
        "model": names[0] if names else None,
        "engine": _engine(settings, status),
        "pid": status.pid if status else None,
        "restarts": status.restarts if status else 0,
        "gpu_layers": status.gpu_layers if status else None,
        "context_size": status.context_size if status else None,
        "slots": _slots(server) if probe == "ready" else None,
        "last_error": status.last_error if status else None,
    }


def _engine(settings: Settings, status: ModelServerStatus | None) -> str | None:
    if not settings.supervised:
        return "external"
    return status.engine if status else None


def _state(probe: str, status: ModelServerStatus | None) -> str:
    """The answer of the model server counts for more than the file: it is newer. But one that is ready for
    ``/health`` may be caught in a loop, or be given its caches, all the same, and its supervisor knows."""
    if status is not None and status.state in (State.UNRESPONSIVE, State.STARTING, State.LOADING):
        return status.state.value
    if probe != "unreachable" or status is None:
        return _STATES[probe].value
    return State.UNRESPONSIVE.value if status.state is State.READY else status.state.value


def _slots(server: ModelServerClient) -> dict[str, int] | None:
    """Slots in all and busy ones; None for engines that do not tell."""
    try:
        slots = server.get("/slots")
    except ModelServerError:
        return None
    if not isinstance(slots, list):
        return None
    return {"total": len(slots), "busy": sum(bool(slot.get("is_processing")) for slot in slots)}
