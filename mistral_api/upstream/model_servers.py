"""The model servers an API process knows, and the health of each.

The model servers as a request sees them: the main one, and the one of EMBEDDING_MODEL_PATH beside it.

The model server's part of ``/health``: what its supervisor says, checked against what it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mistral_api.control.feedback import FeedbackWriter
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec, embedding_server_spec
from mistral_api.control.status import ModelServerStatus, State, StatusReader, read_status
from mistral_api.errors import ModelServerError
from mistral_api.model_files.served_model import served_model_names
from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.catalogue import Catalogue, model_not_found
from mistral_api.upstream.client import ModelServerClient


@dataclass(frozen=True, slots=True)
class ModelServerEntry:
    """One model server. ``reports``: what its supervisor is told, where it is ours; ``served``: the same of what it is.

    Whether a server that someone else runs makes embeddings is for it to say.
    """

    server: ModelServerClient
    catalogue: Catalogue
    reports: FeedbackWriter | None
    served: ServerSpec | None

    def serves(self, name: str) -> bool:
        """Whether a model of this name is its own. Raises ModelServerError where only a server that is away knows."""
        if name in self.catalogue.known_names():
            return True
        return self.served is None and any(model.id == name for model in self.catalogue.models())

    def suits(self, *, ranks: bool) -> bool:
        """Whether it may be asked for scores (``ranks``) or vectors: it can, or its file does not tell."""
        return self.served is None or self.served.is_reranker in (None, ranks)

    def start(self) -> None:
        """Begin to report."""
        if self.reports is not None:
            self.reports.start()

    def close(self) -> None:
        """End its connections, and write the last report."""
        self.server.close()
        if self.reports is not None:
            self.reports.close()


def embedding_server(settings: Settings, watch: DisconnectWatcher) -> ModelServerEntry | None:
    """The server of EMBEDDING_MODEL_PATH, with the calls of ``watch``; None where that is not set."""
    served = embedding_server_spec(settings)
    if served is None:
        return None
    status = StatusReader(settings.data_dir, served.name)

    def given_up() -> str | None:
        gone = "The embedding server is not running and will not be restarted; see its status in /health."
        return gone if status.is_given_up() else None

    server = ModelServerClient(served.settings, given_up, status.is_starting, watch)
    catalogue = Catalogue(server, served_model_names(served.settings))
    return ModelServerEntry(server, catalogue, FeedbackWriter(settings.data_dir, served.name), served)


class ModelServers:
    """Which server answers what."""

    def __init__(self, main: ModelServerEntry, beside: ModelServerEntry | None) -> None:
        # The main one first; whoever does not say which is served by the other one, if that can do it.
        self.all: Sequence[ModelServerEntry] = (main,) if beside is None else (main, beside)
        self._main, self._beside = main, beside

    @property
    def beside(self) -> ModelServerEntry | None:
        """The server of EMBEDDING_MODEL_PATH, if there is one."""
        return self._beside

    def start(self) -> None:
        """Begin to report to every supervisor."""
        for entry in self.all:
            entry.start()

    def close(self) -> None:
        """End all connections."""
        for entry in self.all:
            entry.close()

    def named(self, model: str | None) -> list[ModelServerEntry]:
        """Return the servers of a model, the secondary one first; all servers where no model is named.

        Raises NotFound (``model_not_found``).
        """
        named = [entry for entry in reversed(self.all) if model is None or entry.serves(model)]
        if not named:
            served = [each.id for entry in self.all for each in entry.catalogue.models()]
            raise model_not_found(model or "", list(dict.fromkeys(served)))
        return named

    def default_model(self) -> str | None:
        """The model that the main server serves, if that is known without asking."""
        return self._main.catalogue.default()


# What an answer (or none) of the model server means where nobody supervises it.
_STATES = {"ready": State.READY, "loading": State.LOADING, "unreachable": State.STOPPED}


def model_server_health(
    settings: Settings, server: ModelServerClient, names: list[str], which: str = MAIN_SERVER
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
