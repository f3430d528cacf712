"""What API processes tell the supervisor about generations: the writer in the API, the reader in the supervisor.

Three facts pass this way: which generations the model server failed, which conversation each generation continued, and
which constraints are in use, since a hang is blamed on them.
Every API process owns one small file, ``DATA_DIR/run/reports/<pid>.json``, and the supervisor reads them all. Times
are those of the monotonic clock, which all processes of a machine share. The files hold no text of a conversation
and no session id: a conversation is named by its key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from mistral_api.control.saved_caches import conversation_key
from mistral_api.control.server_spec import MAIN_SERVER, server_file_name
from mistral_api.system.files import replace_file
from mistral_api.system.processes import ProcessIdentity, identity_of, is_alive

log = logging.getLogger(__name__)

# The newest of each that a process keeps in its file.
MAX_GENERATIONS, MAX_FAILURES, MAX_CONSTRAINTS = 64, 16, 256
# The newest generations that the supervisor remembers, also those of processes that have ended.
REMEMBERED_GENERATIONS = 512
# Successes are gathered for so long before they are written; failures are written at once.
GATHER_SECONDS = 0.25
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0


class FinishedGeneration(NamedTuple):
    """A generation that has ended in whatever way.

    ``seed``: the seed that its slot shows. ``conversation``: the key of the conversation whose text the slot holds.
    """

    seed: int
    conversation: str
    may_be_stored: bool
    ended_at: float


class GenerationFailure(NamedTuple):
    """A generation that the model server failed, and its error message."""

    at: float
    text: str


class Standing(StrEnum):
    """What is known of a constraint."""

    NEW = "new"
    # A generation with it has succeeded.
    WORKED = "worked"
    # It is too small to cost anything.
    HARMLESS = "harmless"


class ConstraintUse(NamedTuple):
    """A grammar or JSON schema in a generation that has not succeeded, by its digest.

    ``closed_at``: when the generation ended otherwise; None while it runs.
    """

    digest: str
    standing: Standing
    opened_at: float
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class ProcessFeedback:
    """The feedback of one API process. ``failures`` are those since its last generation that succeeded.

    The field names are the keys of its file, in which each tuple is an array.
    """

    process: ProcessIdentity
    succeeded_at: float | None = None
    failures: tuple[GenerationFailure, ...] = ()
    generations: tuple[FinishedGeneration, ...] = ()
    constraints: tuple[ConstraintUse, ...] = ()

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ProcessFeedback:
        """Read the content of a file. Raises ValueError, TypeError or KeyError for anything else."""
        fields = json.loads(text)
        succeeded_at = fields["succeeded_at"]
        return cls(
            ProcessIdentity(*fields["process"]),
            None if succeeded_at is None else float(succeeded_at),
            tuple(GenerationFailure(float(at), str(message)) for at, message in fields["failures"]),
            tuple(_parse_generation(*each) for each in fields["generations"]),
            tuple(_parse_use(*each) for each in fields.get("constraints", ())),
        )


def _parse_generation(seed: object, conversation: object, may_be_stored: object, ended_at: Any) -> FinishedGeneration:
    if not (isinstance(seed, int) and isinstance(conversation, str) and isinstance(may_be_stored, bool)):
        raise TypeError("not a generation")
    return FinishedGeneration(seed, conversation, may_be_stored, float(ended_at))


def _parse_use(digest: object, standing: Any, opened_at: Any, closed_at: Any) -> ConstraintUse:
    if not isinstance(digest, str):
        raise TypeError("not the use of a constraint")
    return ConstraintUse(digest, Standing(standing), float(opened_at), None if closed_at is None else float(closed_at))


@dataclass(frozen=True, slots=True)
class Feedback:
    """The feedback of all API processes together. ``generations`` are found by their seed."""

    failures: tuple[GenerationFailure, ...]
    generations: dict[int, FinishedGeneration]
    constraints: tuple[ConstraintUse, ...] = ()

    def failures_since(self, moment: float) -> tuple[GenerationFailure, ...]:
        """Return the failures after that moment (monotonic), oldest first.

        They are failures in a row: no generation has succeeded between them or since.
        """
        return tuple(failure for failure in self.failures if failure.at > moment)


def feedback_folder(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the folder of the feedback files about a model server."""
    return data_dir / "run" / server_file_name(server_name, "reports")


class FeedbackReader:
    """The supervisor's side. It reads only files that have changed, so it may be called every second."""

    def __init__(self, data_dir: Path, server_name: str = MAIN_SERVER) -> None:
        self._folder = feedback_folder(data_dir, server_name)
        self._read_files: dict[Path, tuple[tuple[int, int], ProcessFeedback]] = {}
        self._generations: dict[int, FinishedGeneration] = {}

    def read(self) -> Feedback:
        """Return the feedback of all processes now.

        The file of a process that has ended is read once more and removed: its generations count, its failures do
        not.
        """
        found = {path: feedback for path in self._files() if (feedback := self._read_file(path)) is not None}
        self._read_files = {path: self._read_files[path] for path in found}
        self._remember_generations(found.values())
        living = [feedback for path, feedback in found.items() if not self._remove_if_ended(path, feedback)]
        succeeded_at = max((each.succeeded_at for each in living if each.succeeded_at is not None), default=0.0)
        failures = sorted(each for feedback in living for each in feedback.failures if each.at > succeeded_at)
        uses = tuple(use for feedback in found.values() for use in feedback.constraints)
        return Feedback(tuple(failures), self._generations, uses)

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError as error:
            log.debug("no reports: %s", error)
            return []

    def _read_file(self, path: Path) -> ProcessFeedback | None:
        """Return the content of a file, or None where it cannot be read (it is gone, or not ours) or makes no sense."""
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_ino
            known = self._read_files.get(path)
            if known is not None and known[0] == version:
                return known[1]
            feedback = ProcessFeedback.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            log.debug("the report %s cannot be read: %s", path, error)
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.debug("the report %s makes no sense: %s", path, error)
            _remove(path)
            return None
        self._read_files[path] = version, feedback
        return feedback

    def _remember_generations(self, all_feedback: Iterable[ProcessFeedback]) -> None:
        """Add the generations of all files to those remembered, and keep the newest.

        A time in the future belongs to an earlier boot, whose clock had reached a higher value: it is ignored.
        """
        now = time.monotonic()
        found = {each.seed: each for feedback in all_feedback for each in feedback.generations if each.ended_at <= now}
        if found.items() <= self._generations.items():
            return
        newest = sorted((self._generations | found).values(), key=lambda each: each.ended_at)[-REMEMBERED_GENERATIONS:]
        self._generations = {each.seed: each for each in newest}

    def _remove_if_ended(self, path: Path, feedback: ProcessFeedback) -> bool:
        """Remove the file where its process has ended, and return whether it has."""
        if is_alive(feedback.process):
            return False
        _remove(path)
        self._read_files.pop(path, None)
        return True


def _remove(path: Path) -> None:
    """Remove a file. Windows keeps a file that somebody has open; the next read tries again."""
    with contextlib.suppress(OSError):
        path.unlink()


class FeedbackWriter:
    """The API's side: owns this process's file and the thread that writes it, from :meth:`start` to :meth:`close`.

    A request only adds a note in memory, which takes about a microsecond. The thread gathers successes and writes
    them a few times a second at most; it writes failures at once. A full disk costs the feedback, never a request.
    The file stays after :meth:`close`: the supervisor reads it a last time, and removes it once this process has
    ended.
    """

    def __init__(self, data_dir: Path, server_name: str = MAIN_SERVER) -> None:
        self._folder = feedback_folder(data_dir, server_name)
        # Seed, owner, session id, may be stored, ended at: the key is computed in the writing thread.
        self._generations: deque[tuple[int, str, str, bool, float]] = deque(maxlen=MAX_GENERATIONS)
        self._failures: deque[GenerationFailure] = deque(maxlen=MAX_FAILURES)
        # By the number of each; those of generations that have failed stay until newer ones take their place.
        self._constraints: dict[int, ConstraintUse] = {}
        self._uses = itertools.count()
        self._succeeded_at: float | None = None
        self._changed, self._urgent, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._write_lock = threading.Lock()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="feedback-writer", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def add_generation(self, seed: int, owner: str, session_id: str, *, may_be_stored: bool) -> None:
        """Add a generation with this seed that has ended, with success or without."""
        self._generations.append((seed, owner, session_id, may_be_stored, time.monotonic()))
        self._mark_changed()

    def add_success(self) -> None:
        """Add that the model server has answered a request."""
        self._succeeded_at = time.monotonic()
        self._mark_changed()

    def add_failure(self, text: str) -> None:
        """Add that the model server failed a generation that it should have made; ``text``: its error message."""
        self._failures.append(GenerationFailure(time.monotonic(), text))
        self._urgent.set()
        self._mark_changed()

    def open_constraint(self, digest: str, standing: Standing) -> int:
        """Add a constraint that a generation is about to use. Return the number of this use."""
        number = next(self._uses)
        self._constraints[number] = ConstraintUse(digest, standing, time.monotonic())
        self._mark_changed()
        return number

    def close_constraint(self, number: int, *, succeeded: bool) -> None:
        """End a use. Where its generation has not succeeded it stays suspect: the client may have left a hang."""
        use = self._constraints.pop(number, None)
        if use is not None and not succeeded:
            self._constraints[number] = use._replace(closed_at=time.monotonic())
            self._drop_old_constraints()
        self._mark_changed()

    def _drop_old_constraints(self) -> None:
        closed = [number for number, use in list(self._constraints.items()) if use.closed_at is not None]
        for number in closed[:-MAX_CONSTRAINTS]:
            self._constraints.pop(number, None)

    def _mark_changed(self) -> None:
        if not self._changed.is_set():  # a look costs less than setting an event that is set
            self._changed.set()

    def flush(self) -> None:
        """Write what has changed now, in the caller's thread."""
        if self._changed.is_set():
            self._write()

    def close(self) -> None:
        """Write a last time and end the thread."""
        self._closing.set()
        self._urgent.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            self._urgent.wait(GATHER_SECONDS)
            self._urgent.clear()
            if not self._write():
                self._closing.wait(RETRY_SECONDS)
        self._write()

    def _write(self) -> bool:
        """Replace the file, and return whether the disk took it."""
        with self._write_lock:
            self._changed.clear()
            feedback = self._snapshot()
            try:
                replace_file(self._folder / f"{feedback.process.pid}.json", feedback.to_json())
            except OSError as error:
                self._warn_once(error)
                self._changed.set()
                return False
        self._warned = False
        return True

    def _snapshot(self) -> ProcessFeedback:
        succeeded_at = self._succeeded_at
        failures = [each for each in self._failures.copy() if succeeded_at is None or each.at > succeeded_at]
        generations = [
            FinishedGeneration(seed, conversation_key(owner, session_id), may_be_stored, ended_at)
            for seed, owner, session_id, may_be_stored, ended_at in self._generations.copy()
        ]
        uses = tuple(self._constraints.copy().values())
        return ProcessFeedback(identity_of(os.getpid()), succeeded_at, tuple(failures), tuple(generations), uses)

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            log.warning("the supervisor is not told of generations: %s cannot be written: %s", self._folder, error)
        self._warned = True
