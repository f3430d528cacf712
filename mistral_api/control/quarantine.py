"""Constraints that the model server hung with: the supervisor names them, and the API refuses them for a day.

``DATA_DIR/constraints/quarantine.json`` has each by its digest, never by its text. It survives restarts, and all API
processes on a ``DATA_DIR`` share it. Times are Unix seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mistral_api.control.feedback import ConstraintUse, Standing
from mistral_api.system.files import ReplacedFile, replace_file

log = logging.getLogger(__name__)

QUARANTINE_SECONDS = 86_400.0
# The newest that are kept; by then an attacker has hung the server a thousand times.
MOST_QUARANTINED = 1_000
_LOCK_SECONDS = 5.0
# The clocks of a hang are those of two processes, which look once a second.
_SLACK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What the file says.

    ``until``: when each constraint is free again. ``suspected``: when the server last hung with a constraint that is
    not likely to be at fault; the second time it is quarantined too.
    """

    until: dict[str, float] = field(default_factory=dict)
    suspected: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Quarantine:
        """Read the content of the file, without what has ended.

        Raises ValueError, TypeError, KeyError or AttributeError for anything else.
        """
        fields, now = json.loads(text), time.time()
        until = {str(name): float(moment) for name, moment in fields["until"].items() if float(moment) > now}
        suspected = {
            str(name): float(moment)
            for name, moment in fields["suspected"].items()
            if float(moment) > now - QUARANTINE_SECONDS
        }
        return cls(until, suspected)

    def blaming(self, suspects: Iterable[ConstraintUse]) -> tuple[list[str], Quarantine]:
        """Return which of these constraints are blamed for a hang, and the quarantine after it.

        Those that are new are blamed. Where all have worked before, each is suspected, and those that were suspected
        already are blamed: it was no coincidence. Harmless ones come into it only where there is no other.
        """
        uses, now = list(suspects), time.time()
        uses = [use for use in uses if use.standing is not Standing.HARMLESS] or uses
        new = [use.digest for use in uses if use.standing is Standing.NEW]
        blamed = list(dict.fromkeys(new or [use.digest for use in uses if use.digest in self.suspected]))
        suspected = {} if blamed else {use.digest: now for use in uses}
        until = self.until | dict.fromkeys(blamed, now + QUARANTINE_SECONDS)
        return blamed, Quarantine(_newest(until), _newest(self.suspected | suspected))


def _newest(moments: dict[str, float]) -> dict[str, float]:
    return dict(sorted(moments.items(), key=lambda each: each[1])[-MOST_QUARANTINED:])


def quarantine_file(data_dir: Path) -> Path:
    """Return the path of the file."""
    return data_dir / "constraints" / "quarantine.json"


def read_quarantine(data_dir: Path) -> Quarantine:
    """Return what is quarantined now; nothing where the file is not there or makes no sense."""
    try:
        return Quarantine.from_json(quarantine_file(data_dir).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Quarantine()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the quarantine of constraints cannot be read: %s", error)
        return Quarantine()


def blame_constraints(data_dir: Path, uses: Iterable[ConstraintUse], hung_since: float) -> list[str]:
    """Quarantine the constraints that a hang is blamed on, and return their digests. Raises OSError.

    ``uses``: all that are known. ``hung_since``: when the server last made progress (monotonic). Those are suspected
    that were open then or later, even where the client has left since.
    """
    suspects = [use for use in uses if use.closed_at is None or use.closed_at >= hung_since - _SLACK_SECONDS]
    if not suspects:
        return []
    with _locked(data_dir):
        blamed, after = read_quarantine(data_dir).blaming(suspects)
        _write(data_dir, after)
    for digest in blamed:
        log.warning("the constraint %s is quarantined for a day: the model server hung while it was in use", digest)
    return blamed


def clear_quarantine(data_dir: Path, digests: Iterable[str] | None = None) -> int:
    """Free these constraints, or all of them, and return how many were quarantined. Raises OSError."""
    with _locked(data_dir):
        before = read_quarantine(data_dir)
        freed = set(before.until) if digests is None else set(digests)
        until = {digest: moment for digest, moment in before.until.items() if digest not in freed}
        _write(data_dir, Quarantine(until, {} if digests is None else before.suspected))
    return len(before.until) - len(until)


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Let no other process change the file meanwhile. One that hangs is not waited for: the newer change counts."""
    folder = quarantine_file(data_dir).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(folder / "quarantine.lock", timeout=_LOCK_SECONDS)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(Timeout):
            stack.enter_context(lock)
        yield


def _write(data_dir: Path, quarantine: Quarantine) -> None:
    replace_file(quarantine_file(data_dir), quarantine.to_json())


class QuarantineReader:
    """The API's view of the file. It reads the file only after a change, so each request may ask it."""

    def __init__(self, data_dir: Path) -> None:
        self._file = ReplacedFile(quarantine_file(data_dir), partial(read_quarantine, data_dir), Quarantine())

    def is_quarantined(self, digest: str) -> bool:
        """Return whether a constraint is refused now."""
        until = self._file.current().until.get(digest)
        return until is not None and until > time.time()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is quarantined."""
        return not self._file.current().until
