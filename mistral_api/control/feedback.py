"""What API processes tell the supervisor: writer and reader.

What API processes tell the supervisor: generations that failed, and which conversation each one continued.

Every API process owns one small file, ``DATA_DIR/run/reports/<pid>.json``, written by
:mod:`mistral_api.supervisor.report_writer` and read here. Times are those of the monotonic clock, which all
processes of a machine share. No text and no session id is in it: a conversation goes by its key.

The API's side of the reports: requests leave a note in memory, a thread of its own writes the file.

A note costs a request about a microsecond. Successes are gathered and written a few times a second at most,
failures at once. A disk that is full costs the report, never a request.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mistral_api.control.saved_caches import conversation_key
from mistral_api.control.server_spec import MAIN_SERVER, server_file_name
from mistral_api.system.files import replace_file
from mistral_api.system.processes import ProcessIdentity, identity_of, is_alive

log = logging.getLogger(__name__)

# How many generations, the newest, the supervisor remembers; those of processes that have ended too.
REMEMBERED_GENERATIONS = 512


class FinishedGeneration(NamedTuple):
    """One generation that has ended, however: the seed that marks its slot, and whose text the slot holds."""

    seed: int
    conversation: str
    may_be_stored: bool
    ended_at: float


class GenerationFailure(NamedTuple):
    """One generation that the model server failed, and how it put it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class ProcessFeedback:
    """What one process says. ``failures`` are those since its last generation that succeeded."""

    process: ProcessIdentity
    succeeded_at: float | None = None
    failures: tuple[GenerationFailure, ...] = ()
    generations: tuple[FinishedGeneration, ...] = ()

    def to_json(self) -> str:
        """The form in the file."""
        fields = {name: getattr(self, name) for name in ("process", "succeeded_at", "failures", "generations")}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> ProcessFeedback:
        """Read the form in the file. Raises ValueError, TypeError or KeyError for anything else."""
        fields: dict[str, Any] = json.loads(text)
        succeeded_at = fields["succeeded_at"]
        return cls(
            ProcessIdentity(*fields["process"]),
            None if succeeded_at is None else float(succeeded_at),
            tuple(GenerationFailure(float(at), str(said)) for at, said in fields["failures"]),
            tuple(_generation(*each) for each in fields["generations"]),
        )


def _generation(seed: object, conversation: object, may_be_stored: object, ended_at: Any) -> FinishedGeneration:
    if not (isinstance(seed, int) and isinstance(conversation, str) and isinstance(may_be_stored, bool)):
        raise TypeError("not a generation")
    return FinishedGeneration(seed, conversation, may_be_stored, float(ended_at))


@dataclass(frozen=True, slots=True)
class Feedback:
    """What all processes say together. ``generations`` go by their seed."""

    failures: tuple[GenerationFailure, ...]
    generations: dict[int, FinishedGeneration]

    def failures_since(self, moment: float) -> tuple[GenerationFailure, ...]:
        """The failures in a row after that moment (monotonic), oldest first: no generation succeeded since."""
        return tuple(failure for failure in self.failures if failure.at > moment)


def feedback_folder(data_dir: Path, server: str = MAIN_SERVER) -> Path:
    """Where the reports about a model server are."""
    return data_dir / "run" / server_file_name(server, "reports")


class FeedbackReader:
    """The supervisor's side: cheap enough to be asked every second, since only files that changed are read."""

    def __init__(self, data_dir: Path, server: str = MAIN_SERVER) -> None:
        self._folder = feedback_folder(data_dir, server)
        self._known: dict[Path, tuple[tuple[int, int], ProcessFeedback]] = {}
        self._generations: dict[int, FinishedGeneration] = {}

    def read(self) -> Feedback:
        """What is known now. The file of a process that has ended is read once more, and removed."""
        reports = {path: report for path in self._files() if (report := self._report(path)) is not None}
        self._known = {path: self._known[path] for path in reports}
        self._remember(reports.values())
        living = [report for path, report in reports.items() if not self._ended(path, report)]
        succeeded_at = max((each.succeeded_at for each in living if each.succeeded_at is not None), default=0.0)
        failures = sorted(each for report in living for each in report.failures if each.at > succeeded_at)
        return Feedback(tuple(failures), self._generations)

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError as error:
            log.debug("no reports: %s", error)
            return []

    def _report(self, path: Path) -> ProcessFeedback | None:
        """What is in a file, or None where that makes no sense, or where it cannot be read: gone, or not ours."""
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_ino
            known = self._known.get(path)
            if known is not None and known[0] == version:
                return known[1]
            report = ProcessFeedback.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            log.debug("the report %s cannot be read: %s", path, error)
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.debug("the report %s makes no sense: %s", path, error)
            _remove(path)
            return None
        self._known[path] = version, report
        return report

    def _remember(self, reports: Iterable[ProcessFeedback]) -> None:
        """Times after now are those of another boot, whose clock went on for longer: nothing is known of them."""
        now = time.monotonic()
        found = {each.seed: each for report in reports for each in report.generations if each.ended_at <= now}
        if found.items() <= self._generations.items():
            return
        newest = sorted((self._generations | found).values(), key=lambda each: each.ended_at)[-REMEMBERED_GENERATIONS:]
        self._generations = {each.seed: each for each in newest}

    def _ended(self, path: Path, report: ProcessFeedback) -> bool:
        if is_alive(report.process):
            return False
        _remove(path)
        self._known.pop(path, None)
        return True


def _remove(path: Path) -> None:
    """Remove a report; where that fails (Windows keeps a file that somebody looks at) the next look tries again."""
    with contextlib.suppress(OSError):
        path.unlink()


GATHER_SECONDS = 0.25
RETRY_SECONDS = 1.0
MAX_GENERATIONS, MAX_FAILURES = 64, 16
CLOSE_SECONDS = 5.0


class FeedbackWriter:
    """Owns this process's report and the thread that writes it, from :meth:`start` to :meth:`close`.

    The file stays behind: the supervisor reads it a last time and removes it once this process has ended.
    """

    def __init__(self, data_dir: Path, server: str = MAIN_SERVER) -> None:
        self._folder = feedback_folder(data_dir, server)
        self._generations: deque[tuple[int, str, str, bool, float]] = deque(maxlen=MAX_GENERATIONS)
        self._failures: deque[GenerationFailure] = deque(maxlen=MAX_FAILURES)
        self._succeeded_at: float | None = None
        self._changed, self._urgent, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def add_generation(self, seed: int, owner: str, session_id: str, *, may_be_stored: bool) -> None:
        """Note that the generation with this seed has ended, however it did."""
        self._generations.append((seed, owner, session_id, may_be_stored, time.monotonic()))
        self._note_change()

    def add_success(self) -> None:
        """Note that the model server has answered a request."""
        self._succeeded_at = time.monotonic()
        self._note_change()

    def add_failure(self, text: str) -> None:
        """Note that the model server failed a generation that it should have made."""
        self._failures.append(GenerationFailure(time.monotonic(), text))
        self._urgent.set()
        self._note_change()

    def _note_change(self) -> None:
        if not self._changed.is_set():  # asking is cheaper than setting what is set
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
        with self._writing:
            self._changed.clear()
            report = self._report()
            try:
                replace_file(self._folder / f"{report.process.pid}.json", report.to_json())
            except OSError as error:
                self._complain(error)
                self._changed.set()
                return False
        self._warned = False
        return True

    def _report(self) -> ProcessFeedback:
        succeeded_at = self._succeeded_at
        failures = [each for each in self._failures.copy() if succeeded_at is None or each.at > succeeded_at]
        generations = [
            FinishedGeneration(seed, conversation_key(owner, session_id), may_be_stored, at)
            for seed, owner, session_id, may_be_stored, at in self._generations.copy()
        ]
        return ProcessFeedback(identity_of(os.getpid()), succeeded_at, tuple(failures), tuple(generations))

    def _complain(self, error: OSError) -> None:
        if not self._warned:
            log.warning("the supervisor is not told of generations: %s cannot be written: %s", self._folder, error)
        self._warned = True
