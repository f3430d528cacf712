"""Warm restarts: the KV caches of the busiest conversations are saved, and restored into the next model server.

Why nobody gets another conversation's text from a restored cache: llama.cpp keeps with a cache the tokens that it was
computed from. Of a new request it reuses only as many tokens as are equal from the first one on
(``get_common_prefix`` in tools/server/server-common.cpp), and drops the rest before it computes anything. What a cache
holds for a token depends on the tokens up to it and on nothing else, so a request finds there exactly what its own
prompt would have given. This is as true of a restored slot as of any other: which conversation a file is listed under
decides only what is saved and deleted. But the model and its settings must be the same, which :func:`fingerprint`
checks, and the file must be undamaged, so its size and SHA-256 are checked before llama.cpp reads it. An image or a
sound is compared by its hash, as a token is by its number.

Adapters (LoRA) change what a cache holds, and llama.cpp does not note with a cache which scales they had. Those of the
start are in the fingerprint. A slot whose last request named scales of its own is not saved, and none is while an
operator has changed them for everybody (``POST /lora-adapters``).

A server that unloads its model when it is idle (``--sleep-idle-seconds``) loses its slots. So it is saved in time, and
never woken for it.

Where several owners call, the number of tokens that a request finds would tell one what another has asked. There a
restored slot is used for its own conversation alone (``RestoredSlots`` in ``upstream/slot_owners.py``).

What must not be stored is not saved: a slot is saved only where its seed names a generation that may be stored. The
slot is read again after the save, so that a file counts only where the slot still held the same.
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
from mistral_api.control.server_environment import CLOSED_TO_PAGES
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec
from mistral_api.control.status import status_file
from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.model_files.gguf import parse_split_name
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.http_client import SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache_store import CacheStore, cache_candidates, select_caches
from mistral_api.supervisor.slot_cache_transfer import CacheRestorer, CacheSaver

log = logging.getLogger(__name__)

# The time for all caches together, at a planned stop and at a start.
STOP_SAVE_TIMEOUT_SECONDS, RESTORE_TIMEOUT_SECONDS = 15.0, 20.0
# While a cache is written, the generations of all slots wait. So a save that is due waits for a moment without busy
# slots and looks every RETRY_SECONDS, for QUIET_WAIT_SECONDS at most, or for SLOT_SAVE_SECONDS where that is longer.
# QUIET_WAIT_SECONDS is also the time for all caches of one save.
RETRY_SECONDS, QUIET_WAIT_SECONDS = 5.0, 120.0
# A server that dies so soon after a restore does not get the same caches again.
EARLY_END_SECONDS = 30.0
# How long the end of the saving thread is waited for.
THREAD_END_TIMEOUT_SECONDS = 5.0
# How long a generation takes to reach us through an API process's feedback, and some more.
FEEDBACK_DELAY_SECONDS = 0.6

# Command line flags that say how the server is reached and how fast it computes, but not what.
_IRRELEVANT_FLAGS = ("--host", "--port", "--alias", "--threads-http", "-t", "-tb", "--slot-save-path")
# Whatever number of parts a file's name claims.
MAX_SPLIT_FILES = 1000


@contextlib.contextmanager
def open_slot_caches(spec: ServerSpec, command: Sequence[str], engine: Engine) -> Iterator[SlotCacheManager]:
    """Give the caches for one run of a server with this command line."""
    caches = SlotCacheManager(
        spec.settings,
        fingerprint(command, engine.version, spec.environment()),
        spec.name,
        sleep_seconds=spec.sleep_seconds,
        has_adapters=any(file.is_adapter for file in spec.companion_files),
    )
    try:
        yield caches
    finally:
        caches.close()


class SlotCacheManager:
    """Owns ``DATA_DIR/slots`` and the thread that saves, until :meth:`close`. There is one for each run of a server.

    Only the supervisor's loop calls its methods. None of them raises: a cache that cannot be saved or restored only
    costs a prompt that is computed again.
    """

    def __init__(
        self,
        settings: Settings,
        fingerprint: str,
        server_name: str = MAIN_SERVER,
        *,
        sleep_seconds: float | None = None,
        has_adapters: bool = False,
    ) -> None:
        """``sleep_seconds``: after how many idle seconds the server unloads its model, None for never."""
        self.fingerprint = fingerprint
        self._may_sleep = sleep_seconds is not None
        self._save_seconds = settings.slot_save_seconds
        if sleep_seconds is not None:
            self._save_seconds = min(self._save_seconds, sleep_seconds / 2)
        self._has_adapters = has_adapters
        # The scales of the adapters at the server's start.
        self._first_scales: list[float] = []
        self._settings = settings
        self._is_main = server_name == MAIN_SERVER
        self._slots = SlotClient(settings, server_name)
        self._store = CacheStore(settings, fingerprint, server_name)
        # The conversation restored into each slot, by the slot's id.
        self._restored: dict[int, str] = {}
        self._due_at = self._next_try_at = time.monotonic() + self._save_seconds
        # When the newest generation of the last save ended (monotonic).
        self._newest_saved_at = float("-inf")
        self._stop_saving = threading.Event()
        self._saving_thread: threading.Thread | None = None

    def flags(self) -> list[str]:
        """Return what the server's command line needs; create the folder, which llama.cpp demands.

        Without it no slot could be cleared either (``upstream/idle_slots.py``).
        """
        if self._store.prepare():
            return ["--slot-save-path", self._store.folder.slot_save_path]
        can_share = self._settings.parallel > 1 and self._is_main
        return ["--slot-save-path", str(status_file(self._settings.data_dir).parent)] if can_share else []

    @property
    def is_saving(self) -> bool:
        """Whether caches are being written now: meanwhile the model server answers late about its slots."""
        return self._saving_thread is not None and self._saving_thread.is_alive()

    @property
    def restored(self) -> dict[int, str]:
        """The conversation that was restored into each slot, by the slot's id."""
        return self._restored

    def restore(
        self, stop_requested: Callable[[], bool] = lambda: False, seconds: float = RESTORE_TIMEOUT_SECONDS
    ) -> int:
        """Fill the slots of a server that has just become ready, the busiest conversation first.

        Return the number of conversations. ``stop_requested`` is called between two of them, and ends it early.
        """
        began = time.monotonic()
        self._restored = {}
        if not (self._end_saving() and self._store.open()):
            return 0
        self._note_scales()
        self._restored = CacheRestorer(self._slots, self._store).restore(began + seconds, stop_requested)
        self._schedule_next_save()
        if self._restored:
            log.info("restored %d conversations in %.2f s", len(self._restored), time.monotonic() - began)
        return len(self._restored)

    def discard_if_ended_early(self, healthy_seconds: float) -> None:
        """Delete the restored caches where the server died or hung soon after it got them: they may be the cause.

        ``healthy_seconds``: how long it had been ready and making progress.
        """
        if self._end_saving() and self._restored and healthy_seconds < EARLY_END_SECONDS:
            log.warning("the restored conversations are deleted: the model server did not last with them")
            self._store.delete(self._restored.values())
        self._restored = {}

    def save_if_due(self, now: float, feedback: Feedback) -> None:
        """Begin to save when it is time and a conversation was continued. Never waits; call it every second."""
        if self.is_saving:
            return
        self._store.delete_marked(feedback.generations)
        if not self._store.enabled or now < self._next_try_at or not self._has_new_generation(feedback):
            return
        wait_for_quiet = now < self._due_at + max(QUIET_WAIT_SECONDS, self._settings.slot_save_seconds)
        self._stop_saving.clear()
        run = functools.partial(self._run_save, feedback, wait_for_quiet=wait_for_quiet)
        self._saving_thread = threading.Thread(target=run, name="slot-save", daemon=True)
        self._saving_thread.start()

    def save_all(self, read_feedback: Callable[[], Feedback], seconds: float = STOP_SAVE_TIMEOUT_SECONDS) -> int:
        """Save what has changed before a planned stop. Return the number of conversations saved."""
        if not (self._end_saving() and self._store.enabled):
            return 0
        self._stop_saving.clear()
        began = time.monotonic()
        try:
            if self._is_out_of_reach():
                return 0
            feedback = self._wait_for_feedback(read_feedback)
            self._store.delete_marked(feedback.generations)
            count = self._save(feedback, began + seconds)
        except SlotFailure as error:
            log.warning("conversations are not saved: %s", error)
            return 0
        if count:
            log.info("saved %d conversations in %.2f s", count, time.monotonic() - began)
        return count

    def close(self) -> None:
        """End the thread."""
        self._end_saving()

    def _note_scales(self) -> None:
        try:
            self._first_scales = self._slots.adapter_scales() if self._has_adapters else []
        except SlotFailure as error:
            log.warning("conversations are not saved: %s", error)
            self._first_scales = [float("nan")]  # equal to nothing

    def _is_out_of_reach(self) -> bool:
        """Whether the slots cannot be saved: the server sleeps, or its adapters' scales have been changed.

        Raises SlotFailure.
        """
        if self._may_sleep and self._slots.is_sleeping():
            return True
        return self._has_adapters and self._slots.adapter_scales() != self._first_scales

    def _wait_for_feedback(self, read_feedback: Callable[[], Feedback]) -> Feedback:
        """Return the feedback once it has every slot's generation, since the newest may still be on its way."""
        deadline = time.monotonic() + FEEDBACK_DELAY_SECONDS
        seeds = {slot.seed for slot in self._slots.list_slots() if slot.tokens and not slot.busy}
        while not seeds <= (feedback := read_feedback()).generations.keys() and time.monotonic() < deadline:
            time.sleep(0.02)
        return feedback

    def _end_saving(self) -> bool:
        """End the thread, and return whether it has ended. One that waits for a server that hangs has a deadline."""
        self._stop_saving.set()
        if self._saving_thread is not None:
            self._saving_thread.join(timeout=THREAD_END_TIMEOUT_SECONDS)
        return not self.is_saving

    def _has_new_generation(self, feedback: Feedback) -> bool:
        return self._newest_generation_at(feedback) > self._newest_saved_at

    def _newest_generation_at(self, feedback: Feedback) -> float:
        return max((each.ended_at for each in feedback.generations.values()), default=self._newest_saved_at)

    def _schedule_next_save(self) -> None:
        self._due_at = self._next_try_at = time.monotonic() + self._save_seconds

    def _run_save(self, feedback: Feedback, *, wait_for_quiet: bool) -> None:
        """Save once, in the thread. With ``wait_for_quiet``, only schedule another try while a slot is busy."""
        began = time.monotonic()
        try:
            out_of_reach = self._is_out_of_reach()
            if not out_of_reach and wait_for_quiet and any(slot.busy for slot in self._slots.list_slots()):
                self._next_try_at = began + RETRY_SECONDS
                return
            count = 0 if out_of_reach else self._save(feedback, began + QUIET_WAIT_SECONDS)
            log.debug("saved %d conversations in %.2f s", count, time.monotonic() - began)
        except SlotFailure as error:
            log.debug("conversations are not saved now: %s", error)
        self._newest_saved_at = self._newest_generation_at(feedback)
        self._schedule_next_save()

    def _save(self, feedback: Feedback, deadline: float) -> int:
        """Save the busiest conversations, delete the caches of the others, and return how many were saved.

        Raises SlotFailure where the model server does not say what is in its slots.
        """
        self._store.delete_expired()
        ranked = cache_candidates(
            self._slots.list_slots(),
            feedback.generations,
            self._store.caches,
            self._restored,
            (time.monotonic(), time.time()),
        )
        selected = select_caches(
            ranked, self._settings.parallel, self._settings.slot_save_bytes, self._store.bytes_per_token
        )
        self._store.delete(set(self._store.caches) - {each.conversation for each in selected})
        return CacheSaver(self._slots, self._store, feedback, self._stop_saving).save(selected, deadline)


def fingerprint(command: Sequence[str], engine_version: str | None, environment: Mapping[str, str]) -> str:
    """Return a SHA-256 of all that a saved cache depends on. Under another fingerprint the cache is worth nothing.

    That is the command line, the engine's version, every ``LLAMA_ARG_*`` variable but those about web pages, and every
    file that these name (the model with all its parts, the program itself, adapters, templates) with its size and time
    of change. llama.cpp checks little of this when it reads a cache, and some of what it finds ends its process. It is
    right to be too careful here: that costs a cold start, and the other mistake a wrong cache.
    """
    words = list(_relevant_words(command))
    named = {name: value for name, value in environment.items() if name.startswith(LLAMA_PREFIX)}
    variables = sorted((name, value) for name, value in named.items() if name not in CLOSED_TO_PAGES)
    files = sorted({state for text in [*words, *(value for _, value in variables)] for state in _file_states(text)})
    known = {"command": words, "version": engine_version, "variables": variables, "files": files}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _relevant_words(command: Sequence[str]) -> Iterable[str]:
    skip = False
    for word in command:
        if not skip and word not in _IRRELEVANT_FLAGS:
            yield word
        skip = not skip and word in _IRRELEVANT_FLAGS


def _file_states(text: str) -> Iterable[tuple[str, int, int]]:
    """Give path, size and time of change of every file that a word names, with all parts of a split model.

    A word may name one file or a list (``a.gguf,b.gguf``, ``a.gguf:0.5``, ``C:\\a.gguf:0.5``).
    """
    lists = text.split(",")
    for part in {text, *re.split(r"[,:]", text), *lists, *(each.rpartition(":")[0] for each in lists)}:
        for path in _split_files(Path(part)) if part else ():
            try:
                if path.is_file():
                    state = path.stat()
                    yield str(path), state.st_size, state.st_mtime_ns
            except (OSError, ValueError):
                continue  # no name of a file at all: too long, or with a NUL in it


def _split_files(path: Path) -> Iterable[Path]:
    split = parse_split_name(path.name)
    return [path.with_name(name) for name in split.names()[:MAX_SPLIT_FILES]] if split else [path]
