"""The services of an application: made by the factory, started with the first request, closed at the end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from mistral_api.analytics.daily_tokens import DailyTokenReader
from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.api_keys.key_watcher import KeyWatcher
from mistral_api.api_keys.shared_keys import SharedKeys
from mistral_api.control.saved_caches import mark_deleted
from mistral_api.conversations.conversation_list import ConversationLister
from mistral_api.conversations.conversation_reader import ConversationReader
from mistral_api.conversations.deletion_notices import Deleted, DeletionNotices
from mistral_api.conversations.deletions import Deletions
from mistral_api.conversations.history import HistoryReader, SessionHistory
from mistral_api.conversations.recognition import RecognitionIndex
from mistral_api.conversations.recognition_loader import RecognitionLoader
from mistral_api.conversations.session_resolver import SessionResolver
from mistral_api.conversations.shared_recognition import open_recognition
from mistral_api.conversations.stored_completions import CompletionReader
from mistral_api.database.engine import Database, create_thread_engine, database_fingerprint
from mistral_api.database.preparation import DatabasePreparation
from mistral_api.database.probe import DatabaseProbe
from mistral_api.database.query_times import SlowQueryLog, watch_queries
from mistral_api.database.reads import DatabaseReads
from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.embedded.postgres import EmbeddedHealth
from mistral_api.embeddings.embedder import Embedder
from mistral_api.errors import ApiError
from mistral_api.generation.answer_cache import open_answer_cache
from mistral_api.generation.generator import Generator
from mistral_api.generation.passthrough import PassthroughService
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.generation.remote_images import RemoteImages
from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.ipc.siblings import ALONE, Siblings
from mistral_api.metrics.exposition import Metrics
from mistral_api.metrics.instruments import Instruments
from mistral_api.metrics.process_state import ProcessSources
from mistral_api.metrics.server_state import ServerSources
from mistral_api.model_files.served_model import served_model_path
from mistral_api.model_files.vocabulary import longest_token
from mistral_api.observability.finished_request import FinishedRequests
from mistral_api.observability.request_log import log_request
from mistral_api.observability.server_health import ServerHealthReader
from mistral_api.recording.deliverer_link import DelivererLink
from mistral_api.recording.other_processes import SIBLING
from mistral_api.recording.recorder import Recorder, RecordingPolicy, StartDelivery
from mistral_api.responses.context_resolver import ContextResolver
from mistral_api.responses.response_service import ResponseService
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.shared_background import background_runner
from mistral_api.security.audit import AuditLog, Source, shown_path
from mistral_api.security.gate import Gate
from mistral_api.security.key_ring import KeyRing
from mistral_api.security.limit_storage import rate_limits_from
from mistral_api.security.request_head import RequestHead
from mistral_api.security.shared_failures import failure_counter
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback
from mistral_api.system.process_lock import ProcessLock
from mistral_api.tracing.opening import open_tracer
from mistral_api.tracing.trace import NO_TRACER, Tracer
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.loaded_model import LoadedModels
from mistral_api.upstream.model_servers import ModelServers
from mistral_api.upstream.ollama_models import OllamaModels
from mistral_api.upstream.server_identity import ServerIdentity
from mistral_api.upstream.shared_slots import Sharing
from mistral_api.upstream.text_limit import TextLimit
from mistral_api.upstream.token_counter import TokenCounter

if TYPE_CHECKING:
    from mistral_api.delivery.deliverer import Deliverer

log = logging.getLogger(__name__)

# The name of the services among the application's extensions.
EXTENSION = "mistral-api"


class Services:
    """Everything that outlives a request. Owns its threads and connections from :meth:`start` to :meth:`close`."""

    # Replaced at the start, since it has a thread.
    tracer: Tracer = NO_TRACER

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        opened: Database,
        *,
        delivers: bool = True,
        siblings: Siblings = ALONE,
    ) -> None:
        """``engine`` connects to the opened database, which is released last. ``delivers``: whether this process
        delivers what is journaled, unless another one on the same DATA_DIR does. ``siblings``: the other API
        processes that share what is in memory."""
        self.settings = settings
        self.siblings = siblings
        self.engine = engine
        self.preparation = DatabasePreparation(create_thread_engine(engine, settings), engine)
        self.key_ring = KeyRing(settings.admin_api_key)
        self.embedded_postgres = opened.embedded
        self.server_health = ServerHealthReader(siblings, self._embedded_health)
        self.key_mirror = _key_mirror(settings, engine)
        self.key_engine = self.preparation.guard(create_thread_engine(engine, settings), for_keys=True)
        self.key_watcher = KeyWatcher(self.key_ring, self.key_engine, self.key_mirror)
        self.shared_keys = SharedKeys(self.key_watcher, siblings)
        self.gate = Gate(settings, self.key_ring, self._may_be_keyless, failure_counter(siblings))
        self.audit_log = AuditLog(settings.data_dir)
        self.finished_requests = FinishedRequests(log_request)
        self.gpu_monitor = GpuMonitor()
        self.deliverer = self._make_deliverer() if delivers else None
        self.recorder = _recorder(settings, self.deliverer.start if self.deliverer else _link_to_deliverer, siblings)
        self.model_servers = self._open_model_servers()
        main = self.model_servers.main
        self.database_probe = DatabaseProbe(engine)
        self.deletions = Deletions(DeletionNotices(settings.data_dir / "run"), siblings)
        # Empty where the first API process has the one of all.
        self.recognition_index = RecognitionIndex()
        self.recognition = open_recognition(self.recognition_index, siblings, self._catch_up)
        self.recorder.on_end = self.recognition.note
        self.loaded_models = LoadedModels(main.client, main.process)
        self.answers = open_answer_cache(settings, self.loaded_models.identity, siblings, self._catch_up)
        self.recognition_loader = RecognitionLoader(
            self.recognition_index, self.recorder.newest_exchanges, engine, self.deletions.forget_deleted
        )
        self.sessions = SessionResolver(self.recognition, settings.session_headers or ())
        self.rate_limits = rate_limits_from(settings, siblings)
        self.database_reads = DatabaseReads(engine)
        self.daily_tokens = DailyTokenReader(
            self.rate_limits.daily, self.database_reads, self.recorder.pending.all_ended
        )
        self.conversation_reader = ConversationReader(self.database_reads, self.recorder.pending)
        self.conversation_lister = ConversationLister(self.database_reads, self.recorder.pending)
        self.completion_reader = CompletionReader(self.database_reads, self.recorder.pending)
        self.history_reader = HistoryReader(self.conversation_reader)
        self.session_history = SessionHistory(
            self.history_reader, self.recorder.recordable_messages, always=settings.session_history
        )
        self.token_counter = TokenCounter(main.client, self.loaded_models)
        text_limit = TextLimit(self._context, self._longest_token)
        self.prompts = PromptBuilder(
            self.loaded_models, self.token_counter, settings.normalize_roles, text_limit, self._images()
        )
        self.generator = Generator(main, self.recorder, self.sessions, self.session_history, self.prompts)
        self.generator.use_cache(self.answers)
        self.passthrough = PassthroughService(main, self.recorder, self.prompts, self._clear_answers)
        self.embedder = Embedder(self.model_servers, self.recorder, text_limit)
        self.response_store = ResponseStore(engine, self.database_reads, self.history_reader, self.recorder)
        self.response_service = ResponseService(
            self.generator,
            self.sessions,
            self.response_store,
            ContextResolver(self.response_store, self.history_reader, self.prompts, self.token_counter),
            # One slot is always left to those who wait for their answer.
            background_runner(max(1, settings.parallel - 1), siblings, self.deletions.forget_deleted),
        )
        self.deletions.on_retention, self.deletions.on_deleted = self._forget_before, self._forget_deleted
        self.metrics = self._make_metrics()
        self._release_database = opened.release
        self._lock, self._state = threading.Lock(), "made"

    @cached_property
    def ollama_models(self) -> OllamaModels:
        """The models served as clients of Ollama's API see them."""
        return OllamaModels(self.model_servers)

    def _embedded_health(self) -> EmbeddedHealth | None:
        return None if self.embedded_postgres is None else self.embedded_postgres.health()

    def _make_deliverer(self) -> Deliverer:
        from mistral_api.delivery.deliverer import Deliverer  # noqa: PLC0415 - of bin/serve another process delivers

        writer_engine = self.preparation.guard(create_thread_engine(self.engine, self.settings))
        return Deliverer(self.settings, writer_engine, self.engine, self.gpu_monitor.cards)

    def _open_tracer(self) -> Tracer:
        settings = self.settings
        provider = "llama.cpp" if settings.supervised else "external"
        return open_tracer(os.environ, provider, settings.model_server_socket or settings.model_server_base_url)

    def _open_model_servers(self) -> ModelServers:
        servers = ModelServers(self.settings, self._sharing())
        servers.identify(ServerIdentity(self.siblings))
        self.recorder.asked_models.known = servers.known_models
        return servers

    def _sharing(self) -> Sharing:
        """Return what says whether the slots are shared."""
        return Sharing(lambda: self.gate.several_owners, self.recorder.other_processes.seen, self.siblings)

    def _make_metrics(self) -> Metrics:
        """Return the metrics, told of every request and statement."""
        engines = {"readers": self.engine, "keys": self.key_engine}
        if self.deliverer is not None:
            engines["writer"] = self.deliverer.writer_engine
        instruments = Instruments(self.model_servers.known_models)
        slow = SlowQueryLog(self.settings.slow_query_ms)
        for name, engine in engines.items():
            watch_queries(engine, name, instruments, slow)
        self.finished_requests.add(instruments.note_request)
        self.model_servers.main.slot_gate.on_wait = instruments.note_slot_wait
        return Metrics(
            self.settings.data_dir / "run" / "metrics",
            instruments,
            ProcessSources(self.model_servers, self.finished_requests, engines, self._delivery_counts()),
            ServerSources(self.model_servers, self.recorder.state, self.gpu_monitor.read),
        )

    def _delivery_counts(self) -> DeliveryCounts:
        return DeliveryCounts() if self.deliverer is None else self.deliverer.counts

    def _context(self, call: UpstreamCall) -> int | None:
        """Return the tokens of one request to the main model server. It is asked where that is not known yet."""
        main = self.model_servers.main
        known = self.loaded_models.current(call).context or main.catalogue.known_window()
        # Where the server is too busy to tell it, its whole context still bounds what could fit.
        return known or (None if main.status is None else main.status.context_size())

    def _may_be_keyless(self) -> bool:
        """Whether a new server, whose database may not be used yet, takes keys that nobody knows of for none.

        It listens on this machine alone, and its DATA_DIR has seen no key.
        """
        return not self.preparation.is_open and self.key_mirror.is_keyless and is_loopback(self.settings.api_host)

    def _longest_token(self) -> int:
        return longest_token(served_model_path(self.settings) if self.settings.supervised else None)

    def start(self) -> None:
        """Start all threads. The first request calls this, so that ``flask db …`` starts none."""
        with self._lock:
            if self._state != "made":
                return
            if self.embedded_postgres is not None:
                self.embedded_postgres.watch()
            self.key_watcher.start()
            self.preparation.load_keys_by(self.key_watcher.load)
            self.preparation.ensure_running()
            self.recorder.start()
            if self.siblings.first is None:
                self.recognition_loader.start()
            self.daily_tokens.start()
            self.model_servers.start()
            self.metrics.start()
            self.tracer = self._open_tracer()
            self.key_watcher.wait_until_loaded()
            self._state = "started"
            atexit.register(self.close)
            # A process of multiprocessing, such as granian's workers are, ends without atexit.
            processes = sys.modules.get("multiprocessing.util")
            if processes is not None:
                processes.Finalize(None, self.close, exitpriority=0)

    def note_refusal(self, error: ApiError, head: RequestHead, request_id: str) -> None:
        """Tell of a request that no view has seen, and write a line into the audit log where its error is an event."""
        source: Source = {
            "address": self.gate.address(head),
            "key": None,
            "method": head.method,
            "route": shown_path(head.path),
            "request_id": request_id,
        }
        self.audit_log.note(error, source)
        self.finished_requests.tell_refused(error, source)

    def forget_session(self, owner: str, session_id: str) -> None:
        """Drop a conversation that was changed or deleted from the memory of all processes, and its saved cache."""
        try:
            mark_deleted(self.settings.data_dir, owner, session_id)
        except OSError as error:
            log.warning("the saved cache of a deleted conversation may come back: %s", error)
        self.deletions.tell(Deleted(owner, session_id))

    def forget_answer(self, owner: str, response_id: str = "") -> None:
        """Drop an answer that was deleted, a response where it has an id, and all cached ones of its owner, from the
        memory of all processes."""
        self.deletions.tell(Deleted(owner, response_id=response_id))

    def _forget_deleted(self, deleted: Deleted) -> None:
        """Drop from the memory of this process what it, or another one, has deleted."""
        if deleted.session_id:
            self.recognition_index.forget(deleted.owner, deleted.session_id)
            self.response_service.forget_session(deleted.owner, deleted.session_id)
        if deleted.response_id:
            self.response_service.forget(deleted.response_id)
        # The first process drops those of all: it has heard of the same.
        if self.answers is not None and self.siblings.first is None:
            self.answers.forget(deleted.owner)

    def _forget_before(self, moment: float) -> None:
        """Drop from memory what was last used before a moment (Unix seconds), which the retention has deleted."""
        self.recognition_index.forget_before(moment)
        self.response_service.forget_before(moment)

    def _catch_up(self) -> None:
        """Do what the other API processes have told until now, and forget what any process has deleted."""
        if self.siblings.hub is not None:
            self.siblings.hub.catch_up()
        self.deletions.forget_deleted()

    def _images(self) -> RemoteImages:
        if not self.settings.allow_image_urls:
            return RemoteImages(None, self.settings.max_request_bytes)
        from mistral_api.upstream.image_fetcher import ImageFetcher  # noqa: PLC0415 - most servers fetch no images

        return RemoteImages(ImageFetcher(self.model_servers.watcher), self.settings.max_request_bytes)

    def _clear_answers(self) -> None:
        if self.answers is not None:
            self.answers.clear()

    def close(self) -> None:
        """Close everything. May be called twice. What PostgreSQL does not have yet stays in the journal."""
        with self._lock:
            if self._state == "closed":
                return
            self._state = "closed"
        atexit.unregister(self.close)
        self.preparation.close()
        # Ending its responses records them, so it comes before the recorder.
        self.response_service.close()
        self.model_servers.close()
        self.recognition_loader.close()
        self.daily_tokens.close()
        self.rate_limits.close()
        if self.answers is not None:
            self.answers.close()
        self.recorder.close()
        self.metrics.close()
        self.tracer.close()
        self.gpu_monitor.close()
        self.database_probe.close()
        self.key_watcher.close()
        if self.deliverer is not None:
            self.deliverer.writer_engine.dispose()
        self.engine.dispose()
        self._release_database()


def _key_mirror(settings: Settings, engine: Engine) -> KeyMirror:
    database = database_fingerprint(None if settings.database_url is None else engine.url, settings.database_schema)
    return KeyMirror(settings.data_dir, database)


def _recorder(settings: Settings, start_delivery: StartDelivery, siblings: Siblings) -> Recorder:
    policy = RecordingPolicy(
        settings.store_content,
        settings.store_attachment_bytes,
        settings.recording_required,
        keeps_unstored=settings.store_false == "conversation",
        synced=settings.journal_sync == "full",
    )
    return Recorder(settings.data_dir / "journal", policy, start_delivery, SIBLING if siblings.first else "")


def _link_to_deliverer(path: Path, _lock: ProcessLock) -> DelivererLink:
    """Return the way to the process that delivers the journal at ``path`` (``StartDelivery``)."""
    return DelivererLink(path.parent)


def services_of(extensions: Mapping[str, Any]) -> Services:
    """Return the services among the extensions of an application (``app.extensions``)."""
    services: Services = extensions[EXTENSION]
    return services
