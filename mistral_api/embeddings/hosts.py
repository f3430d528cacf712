"""The model servers as a request sees them: the main one, and the one of EMBEDDING_MODEL_PATH beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mistral_api.embeddings.tasks import EmbeddingTask
from mistral_api.errors import InvalidRequest
from mistral_api.inference.cancellation import DisconnectWatcher
from mistral_api.inference.catalogue import Catalogue, model_not_found
from mistral_api.inference.client import ModelServerClient
from mistral_api.settings import Settings
from mistral_api.supervisor.model import served_model_names
from mistral_api.supervisor.report_writer import FeedbackWriter
from mistral_api.supervisor.served import ServerSpec, embedding_server_spec
from mistral_api.supervisor.status import StatusReader


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

    def suits(self, task: EmbeddingTask) -> bool:
        """Whether it may be asked for this."""
        return self.served is None or self.served.ranks in (None, task.ranks)

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
    status = StatusReader(settings.data_dir, served.server)

    def given_up() -> str | None:
        gone = "The embedding server is not running and will not be restarted; see its status in /health."
        return gone if status.given_up() else None

    server = ModelServerClient(served.settings, given_up, status.being_started, watch)
    catalogue = Catalogue(server, served_model_names(served.settings))
    return ModelServerEntry(server, catalogue, FeedbackWriter(settings.data_dir, served.server), served)


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
        for host in self.all:
            host.start()

    def close(self) -> None:
        """End all connections."""
        for host in self.all:
            host.close()

    def choose(self, task: EmbeddingTask, name: str | None) -> ModelServerEntry:
        """The server for a request that names this model, or none.

        Raises NotFound for a model that is not served, InvalidRequest (``not_supported``) for one that cannot.
        """
        named = [host for host in reversed(self.all) if name is None or host.serves(name)]
        if not named:
            served = [model.id for host in self.all for model in host.catalogue.models()]
            raise model_not_found(name or "", list(dict.fromkeys(served)))
        able = [host for host in named if host.suits(task)]
        if not able:
            raise not_supported(task, name or self._main.catalogue.default())
        return able[0]


def not_supported(task: EmbeddingTask, name: str | None) -> InvalidRequest:
    """The refusal where there is no model for this; it says what to set."""
    who = f"The model '{name}'" if name else "The model that is served"
    return InvalidRequest(
        f"{who} {task.makes}. Set EMBEDDING_MODEL_PATH to {task.model} (a GGUF file), or MODEL_SERVER_URL to an engine "
        "that serves one.",
        code="not_supported",
        param="model",
    )
