"""The application's services: made by the factory, started with the first request, closed at the end."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine

from mistral_api.control.feedback import FeedbackWriter
from mistral_api.control.saved_caches import delete_unused, mark_deleted
from mistral_api.control.server_spec import main_server_spec
from mistral_api.control.status import StatusReader
from mistral_api.conversations.history import HistoryReader, SessionHistory
from mistral_api.database.engine import MIGRATIONS, writer_engine
from mistral_api.database.probe import DatabaseProbe
from mistral_api.delivery.gpu_sampler import GpuSampler
from mistral_api.delivery.housekeeping import Housekeeping
from mistral_api.delivery.writer import delivery_to
from mistral_api.embeddings.embedder import Embedder
from mistral_api.generation.generator import Generator
from mistral_api.generation.passthrough import PassthroughService
from mistral_api.generation.prompt import Chats, PromptBuilder
from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.model_files.served_model import served_model_names
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.background import BackgroundRunner
from mistral_api.responses.context_resolver import ContextResolver
from mistral_api.responses.responder import ResponseService
from mistral_api.responses.response_store import ResponseStore
from mistral_api.settings import Settings
from mistral_api.upstream.catalogue import Catalogue
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.loaded_model import LoadedModels
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServers, embedding_server
from mistral_api.upstream.token_counter import TokenCounter

log = logging.getLogger(__name__)

# The name of the services among the application's extensions.
EXTENSION = "mistral-api"


class Services:
    """Everything that outlives a request, in one place with one owner."""

    def __init__(self, settings: Settings, engine: Engine, release_database: Callable[[], None]) -> None:
        """``release_database`` is called last: it stops an embedded PostgreSQL of ours."""
        self.settings = settings
        self.engine = engine
        self.started_at = time.monotonic()
        self._status = StatusReader(settings.data_dir) if settings.supervised else None
        self.model_server = ModelServerClient(settings, self._given_up, self._being_started)
        names = served_model_names(settings) if settings.supervised else []
        beside = embedding_server(settings, self.model_server.watch)
        self.catalogue = Catalogue(self.model_server, names, beside.catalogue.known_names() if beside else ())
        self.writer_engine = writer_engine(engine, settings)
        policy = RecordingPolicy(settings.store_content, settings.store_attachment_bytes, settings.recording_required)
        self.recorder = Recorder(settings.data_dir / "journal", policy, delivery_to(self.writer_engine))
        self.housekeeping = Housekeeping(engine, settings.retention_days, self._forget_older)
        self.database_probe = DatabaseProbe(engine, MIGRATIONS)
        self.gpu_monitor = GpuMonitor()
        self.gpu_sampler = GpuSampler(engine, self.gpu_monitor.cards, settings.data_dir / "run")
        self.reports = FeedbackWriter(settings.data_dir) if settings.supervised else None
        served = main_server_spec(settings) if settings.supervised else None
        self.hosts = ModelServers(ModelServerEntry(self.model_server, self.catalogue, self.reports, served), beside)
        self.embedder = Embedder(self.hosts, self.recorder)
        self.loaded_models = LoadedModels(self.model_server, self._model_server_life)
        self.history = HistoryReader(engine, self.recorder)
        self.memory = SessionHistory(self.history, self.recorder.kept, always=settings.session_history)
        self.token_counter = TokenCounter(self.model_server, self.loaded_models)
        self.prompts = PromptBuilder(self.loaded_models, self.token_counter, settings.normalize_roles)
        chats = Chats(self.memory, self.prompts)
        self.generator = Generator(self.model_server, self.catalogue, self.recorder, self.reports, chats)
        self.questions = PassthroughService(self.model_server, self.catalogue, self.recorder, self.prompts)
        self.responses = ResponseStore(engine, self.recorder)
        contexts = ContextResolver(engine, self.responses, self.history, self.prompts, self.token_counter)
        self.responder = ResponseService(self.generator, self.responses, contexts, BackgroundRunner(settings.parallel))
        self._release_database = release_database
        self._lock = threading.Lock()
        self._state = "made"

    def _given_up(self) -> str | None:
        """Why the supervisor will not bring the model server back, if it has said so."""
        if self._status is None or not self._status.is_given_up():
            return None
        return "The model server is not running and will not be restarted; see its status in /health."

    def _being_started(self) -> bool:
        return self._status is not None and self._status.is_starting()

    def _model_server_life(self) -> object | None:
        return None if self._status is None else self._status.server_process()

    def start(self) -> None:
        """Begin recording. Called by the first request, so that ``flask db …`` starts no threads."""
        with self._lock:
            if self._state != "made":
                return
            self.recorder.start()
            self.housekeeping.start()
            self.gpu_sampler.start()
            self.hosts.start()
            self._state = "started"
            atexit.register(self.close)

    def forget_session(self, owner: str, session_id: str) -> None:
        """Have what is kept of a conversation in memory, and by the supervisor, go too: it was changed or deleted."""
        self.responder.forget_session(owner, session_id)
        try:
            mark_deleted(self.settings.data_dir, owner, session_id)
        except OSError as error:
            log.warning("the saved cache of a deleted conversation may come back: %s", error)

    def _forget_older(self, days: int) -> None:
        self.responder.forget_before(time.time() - days * 86_400)
        try:
            delete_unused(self.settings.data_dir, days)
        except OSError as error:
            log.warning("saved caches that are too old cannot be deleted now: %s", error)

    def close(self) -> None:
        """Close everything; idempotent. What PostgreSQL does not have yet stays in the journal."""
        with self._lock:
            if self._state == "closed":
                return
            self._state = "closed"
        atexit.unregister(self.close)
        # Its responses are recorded, so it comes before the recorder.
        self.responder.close()
        self.hosts.close()
        self.housekeeping.close()
        self.recorder.close()
        self.gpu_sampler.close()
        self.gpu_monitor.close()
        self.database_probe.close()
        self.writer_engine.dispose()
        self.engine.dispose()
        self._release_database()


def services_of(extensions: Mapping[str, Any]) -> Services:
    """Return the services among the extensions of an application (``app.extensions``)."""
    services: Services = extensions[EXTENSION]
    return services
