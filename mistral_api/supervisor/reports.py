"""What API processes tell the supervisor: generations that failed, and which conversation each one continued.

Every API process owns one small file, ``DATA_DIR/run/reports/<pid>.json``, written by
:mod:`mistral_api.supervisor.report_writer` and read here. Times are those of the monotonic clock, which all
processes of a machine share. No text and no session id is in it: a conversation goes by its key.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mistral_api.process_identity import ProcessIdentity, is_alive
from mistral_api.supervisor.files import MAIN, server_file_name

log = logging.getLogger(__name__)

# How many generations, the newest, the supervisor remembers; those of processes that have ended too.
REMEMBERED = 512


class Generation(NamedTuple):
    """One generation that has ended, however: the seed that marks its slot, and whose text the slot holds."""

    seed: int
    conversation: str
    may_be_stored: bool
    ended_at: float


class Failure(NamedTuple):
    """One generation that the model server failed, and how it put it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class FeedbackFile:
    """What one process says. ``failures`` are those since its last generation that succeeded."""

    process: ProcessIdentity
    succeeded_at: float | None = None
    failures: tuple[Failure, ...] = ()
    generations: tuple[Generation, ...] = ()

    def to_json(self) -> str:
        """The form in the file."""
        fields = {name: getattr(self, name) for name in ("process", "succeeded_at", "failures", "generations")}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> FeedbackFile:
        """Read the form in the file. Raises ValueError, TypeError or KeyError for anything else."""
        fields: dict[str, Any] = json.loads(text)
        succeeded_at = fields["succeeded_at"]
        return cls(
            ProcessIdentity(*fields["process"]),
            None if succeeded_at is None else float(succeeded_at),
            tuple(Failure(float(at), str(said)) for at, said in fields["failures"]),
            tuple(_generation(*each) for each in fields["generations"]),
        )


def _generation(seed: object, conversation: object, may_be_stored: object, ended_at: Any) -> Generation:
    if not (isinstance(seed, int) and isinstance(conversation, str) and isinstance(may_be_stored, bool)):
        raise TypeError("not a generation")
    return Generation(seed, conversation, may_be_stored, float(ended_at))


@dataclass(frozen=True, slots=True)
class Feedback:
    """What all processes say together. ``generations`` go by their seed."""

    failures: tuple[Failure, ...]
    generations: dict[int, Generation]

    def failures_since(self, moment: float) -> tuple[Failure, ...]:
        """The failures in a row after that moment (monotonic), oldest first: no generation succeeded since."""
        return tuple(failure for failure in self.failures if failure.at > moment)


def reports_folder(data_dir: Path, server: str = MAIN) -> Path:
    """Where the reports about a model server are."""
    return data_dir / "run" / server_file_name(server, "reports")


class FeedbackReader:
    """The supervisor's side: cheap enough to be asked every second, since only files that changed are read."""

    def __init__(self, data_dir: Path, server: str = MAIN) -> None:
        self._folder = reports_folder(data_dir, server)
        self._known: dict[Path, tuple[tuple[int, int], FeedbackFile]] = {}
        self._generations: dict[int, Generation] = {}

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

    def _report(self, path: Path) -> FeedbackFile | None:
        """What is in a file, or None where that makes no sense, or where it cannot be read: gone, or not ours."""
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_ino
            known = self._known.get(path)
            if known is not None and known[0] == version:
                return known[1]
            report = FeedbackFile.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            log.debug("the report %s cannot be read: %s", path, error)
            return None
        except (ValueError, TypeError, KeyError) as error:
            log.debug("the report %s makes no sense: %s", path, error)
            _remove(path)
            return None
        self._known[path] = version, report
        return report

    def _remember(self, reports: Iterable[FeedbackFile]) -> None:
        """Times after now are those of another boot, whose clock went on for longer: nothing is known of them."""
        now = time.monotonic()
        found = {each.seed: each for report in reports for each in report.generations if each.ended_at <= now}
        if found.items() <= self._generations.items():
            return
        newest = sorted((self._generations | found).values(), key=lambda each: each.ended_at)[-REMEMBERED:]
        self._generations = {each.seed: each for each in newest}

    def _ended(self, path: Path, report: FeedbackFile) -> bool:
        if is_alive(report.process):
            return False
        _remove(path)
        self._known.pop(path, None)
        return True


def _remove(path: Path) -> None:
    """Remove a report; where that fails (Windows keeps a file that somebody looks at) the next look tries again."""
    with contextlib.suppress(OSError):
        path.unlink()
