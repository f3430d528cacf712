"""Warm restarts: save and restore slots around a restart.

What a saved cache depends on: another model, engine or setting, and it is worth nothing.

llama.cpp checks little of this itself when it reads a cache, and ends the process over some of what it finds.

Saves the caches of the busiest conversations while the model server runs, and restores them into the next one.

Why nobody gets another's text from a restored cache: llama.cpp keeps with a cache the tokens that it was computed
from, and of a new request reuses only as far as its own tokens are the same from the first one on
(``get_common_prefix`` in tools/server/server-common.cpp); the rest is dropped before anything is computed. What a
cache holds for a token depends on the tokens up to it and on nothing else, so a request finds there just what its
own prompt would have been turned into. That is as true of a slot that was restored as of one that never was empty;
which conversation a file is said to be of decides only what is saved and deleted. What must fit is the model and how
it is run: that is the fingerprint's concern, and a file's size and SHA-256 are looked at before llama.cpp sees it.

What must not be stored is not saved: a slot is written only where its seed names a generation that may be, and
what was in the slot meanwhile is found out by looking again before the file counts.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mistral_api.control.feedback import Feedback
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec
from mistral_api.model_files.gguf import parse_split_name
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.http_client import SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache_store import CacheStore, cache_candidates, select_caches
from mistral_api.supervisor.slot_cache_transfer import CacheRestorer, CacheSaver

# Words on the command line that say how the server is reached and how fast it computes, not what.
_INDIFFERENT = ("--host", "--port", "--alias", "--threads-http", "-t", "-tb", "--slot-save-path")
# Whatever a file's name claims.
MOST_SHARDS = 1000


def fingerprint(command: Sequence[str], engine_version: str | None, environment: Mapping[str, str]) -> str:
    """SHA-256 over the command line, the engine's version, every ``LLAMA_ARG_*`` and every file that they name.

    A file counts by its path, size and time of change (the model, all its shards, the program itself, adapters,
    templates). Too careful is right here: it costs a cold start, the other mistake a wrong cache.
    """
    words = list(_significant(command))
    variables = sorted((name, value) for name, value in environment.items() if name.startswith("LLAMA_ARG_"))
    files = sorted({state for text in [*words, *(value for _, value in variables)] for state in _files(text)})
    known = {"command": words, "version": engine_version, "variables": variables, "files": files}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _significant(command: Sequence[str]) -> Iterable[str]:
    skip = False
    for word in command:
        if not skip and word not in _INDIFFERENT:
            yield word
        skip = not skip and word in _INDIFFERENT


def _files(text: str) -> Iterable[tuple[str, int, int]]:
    """Every file that a word names, alone or in a list (``a.gguf,b.gguf``, ``a.gguf:0.5``), with all its shards."""
    for part in {text, *re.split(r"[,:]", text)}:
        for path in _with_shards(Path(part)) if part else ():
            try:
                if path.is_file():
                    state = path.stat()
                    yield str(path), state.st_size, state.st_mtime_ns
            except (OSError, ValueError):
                continue  # no name of a file at all: too long, or with a NUL in it


def _with_shards(path: Path) -> Iterable[Path]:
    split = parse_split_name(path.name)
    return [path.with_name(name) for name in split.names()[:MOST_SHARDS]] if split else [path]


log = logging.getLogger(__name__)

# How long a planned stop, and a start, may take for all caches together.
STOP_SAVE_SECONDS, RESTORE_SECONDS = 15.0, 20.0
# Saving one holds up the generations of all slots while it is written: a quiet moment is waited for, so long at most.
TRY_AGAIN_SECONDS, PATIENCE_SECONDS = 5.0, 120.0
# A server that dies so soon after a restore does not get the same caches again.
DISTRUST_SECONDS = 30.0
END_SECONDS = 5.0
# How long an API process takes to report a generation, and some more.
REPORT_SECONDS = 0.6


@contextlib.contextmanager
def open_slot_caches(served: ServerSpec, command: Sequence[str], engine: Engine) -> Iterator[SlotCacheManager]:
    """The caches for the life of a server with this command line."""
    known_by = fingerprint(command, engine.version, served.environment())
    caches = SlotCacheManager(served.settings, known_by, served.name)
    try:
        yield caches
    finally:
        caches.close()


class SlotCacheManager:
    """Owns ``DATA_DIR/slots`` and the thread that saves, until :meth:`close`. One for a command line.

    Its methods are for the supervisor's loop alone. None raises: a cache that cannot be saved or restored costs a
    prompt that is read again.
    """

    def __init__(self, settings: Settings, fingerprint: str, server: str = MAIN_SERVER) -> None:
        self._settings = settings
        self._server = SlotClient(settings)
        self._store = CacheStore(settings, fingerprint, server)
        self._restored: dict[int, str] = {}
        self._restored_at = float("-inf")
        self._due_at = self._try_at = time.monotonic() + settings.slot_save_seconds
        self._newest = float("-inf")
        self._stop_saving = threading.Event()
        self._worker: threading.Thread | None = None

    def flags(self) -> list[str]:
        """What the server's command line needs besides; makes the folder, which llama.cpp asks for."""
        return ["--slot-save-path", self._store.folder.slot_save_path] if self._store.prepare() else []

    @property
    def is_saving(self) -> bool:
        """Whether caches are being written now: the model server answers about its slots late then."""
        return self._worker is not None and self._worker.is_alive()

    def restore(self, stopping: Callable[[], bool] = lambda: False, seconds: float = RESTORE_SECONDS) -> int:
        """Fill the slots of a server that has just become ready, the busiest conversation first; how many.

        ``stopping`` is asked between two of them, and ends it early.
        """
        began = time.monotonic()
        self._restored = {}
        if not (self._end_saving() and self._store.open()):
            return 0
        self._restored = CacheRestorer(self._server, self._store).restore(began + seconds, stopping)
        self._restored_at = time.monotonic()
        self._wait_again()
        if self._restored:
            log.info("restored %d conversations in %.2f s", len(self._restored), self._restored_at - began)
        return len(self._restored)

    def distrust_restored(self, worked_seconds: float) -> None:
        """Note that the server died or hung after it had worked so long: caches that it was just given may be why."""
        if self._end_saving() and self._restored and worked_seconds < DISTRUST_SECONDS:
            log.warning("the restored conversations are deleted: the model server did not last with them")
            self._store.delete(self._restored.values())
        self._restored = {}

    def save_if_due(self, now: float, reports: Feedback) -> None:
        """Begin to save when it is time and a conversation was continued; never waits. Call it each second."""
        if self.is_saving:
            return
        self._store.delete_marked(reports.generations)
        if not self._store.enabled or now < self._try_at or not self._continued(reports):
            return
        patient = now < self._due_at + max(PATIENCE_SECONDS, self._settings.slot_save_seconds)
        self._stop_saving.clear()
        begin = functools.partial(self._save_quietly, reports, patient=patient)
        self._worker = threading.Thread(target=begin, name="slot-save", daemon=True)
        self._worker.start()

    def save_all(self, read: Callable[[], Feedback], seconds: float = STOP_SAVE_SECONDS) -> int:
        """Save what has changed before a planned stop; how many conversations were. ``read`` reads the reports."""
        if not (self._end_saving() and self._store.enabled):
            return 0
        self._stop_saving.clear()
        began = time.monotonic()
        try:
            reports = self._with_the_last(read)
            self._store.delete_marked(reports.generations)
            count = self._save(reports, began + seconds)
        except SlotFailure as error:
            log.warning("conversations are not saved: %s", error)
            return 0
        if count:
            log.info("saved %d conversations in %.2f s", count, time.monotonic() - began)
        return count

    def _with_the_last(self, read: Callable[[], Feedback]) -> Feedback:
        """The reports, once they name every slot's generation: that of a moment ago may be on its way."""
        deadline = time.monotonic() + REPORT_SECONDS
        seeds = {slot.seed for slot in self._server.list_slots() if slot.tokens and not slot.busy}
        while not seeds <= (reports := read()).generations.keys() and time.monotonic() < deadline:
            time.sleep(0.02)
        return reports

    def close(self) -> None:
        """End the thread."""
        self._end_saving()

    def _end_saving(self) -> bool:
        """Whether no thread saves any more: one that waits for a server that hangs is left to its deadline."""
        self._stop_saving.set()
        if self._worker is not None:
            self._worker.join(timeout=END_SECONDS)
        return not self.is_saving

    def _continued(self, reports: Feedback) -> bool:
        return max((each.ended_at for each in reports.generations.values()), default=self._newest) > self._newest

    def _wait_again(self) -> None:
        self._due_at = self._try_at = time.monotonic() + self._settings.slot_save_seconds

    def _save_quietly(self, reports: Feedback, *, patient: bool) -> None:
        """In the thread."""
        began = time.monotonic()
        try:
            if patient and any(slot.busy for slot in self._server.list_slots()):
                self._try_at = began + TRY_AGAIN_SECONDS
                return
            count = self._save(reports, began + PATIENCE_SECONDS)
            log.debug("saved %d conversations in %.2f s", count, time.monotonic() - began)
        except SlotFailure as error:
            log.debug("conversations are not saved now: %s", error)
        self._newest = max((each.ended_at for each in reports.generations.values()), default=self._newest)
        self._wait_again()

    def _save(self, reports: Feedback, deadline: float) -> int:
        """Raises SlotFailure where the model server does not say what is in its slots."""
        self._store.delete_expired()
        ranked = cache_candidates(
            self._server.list_slots(),
            reports.generations,
            self._store.caches,
            self._restored,
            (time.monotonic(), time.time()),
        )
        kept = select_caches(
            ranked, self._settings.parallel, self._settings.slot_save_bytes, self._store.bytes_per_token
        )
        self._store.delete(set(self._store.caches) - {each.conversation for each in kept})
        round_ = CacheSaver(self._server, self._store, reports, self._stop_saving)
        return sum(round_.save(kept, deadline))
