"""The verdicts of trials, in memory and in a file, so that each constraint is tried once on a ``DATA_DIR``."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

from mistral_api.constraints.trial_process import Verdict
from mistral_api.system.files import open_private, replace_file

log = logging.getLogger(__name__)

MOST_VERDICTS = 4_000
# A constraint is tried again after so long where it was too costly: one near the bound may have been so only because
# the machine was busy. A trial more costs no more than that of a new constraint.
COSTLY_SECONDS = 600.0


class VerdictStore:
    """Remembers the newest verdicts. Safe to use from many threads, and beside other processes on the same file.

    The file has a line for each verdict, which is appended at once. A disk that takes none costs another trial.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._verdicts: dict[str, tuple[Verdict, float]] = {}
        self._version: tuple[int, int] | None = None

    def find(self, key: str) -> Verdict | None:
        """Return what is known of a constraint, also from another process."""
        found = self._verdicts.get(key)
        if found is None:
            with self._lock:
                self._read_if_changed()
                found = self._verdicts.get(key)
        if found is None or (found[0] is Verdict.TOO_COSTLY and time.time() - found[1] > COSTLY_SECONDS):
            return None
        return found[0]

    def add(self, key: str, verdict: Verdict) -> None:
        """Remember a verdict."""
        entry = verdict, time.time()
        with self._lock:
            self._verdicts.pop(key, None)
            self._verdicts[key] = entry
            try:
                self._append(key, entry)
            except OSError as error:
                log.debug("a verdict is not written: %s", error)

    def _append(self, key: str, entry: tuple[Verdict, float]) -> None:
        if len(self._verdicts) > MOST_VERDICTS:
            self._verdicts = dict(list(self._verdicts.items())[-MOST_VERDICTS // 2 :])
            replace_file(self._path, "".join(_line(*each) for each in self._verdicts.items()))
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._path, "a", encoding="utf-8", opener=open_private) as file:
            file.write(_line(key, entry))

    def _read_if_changed(self) -> None:
        try:
            status = self._path.stat()
            version = status.st_mtime_ns, status.st_size
            if version == self._version:
                return
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        self._version = version
        for line in lines[-MOST_VERDICTS:]:
            found = _parse_line(line)
            if found is not None:
                self._verdicts[found[0]] = found[1]


def _line(key: str, entry: tuple[Verdict, float]) -> str:
    return json.dumps([key, entry[0].value, entry[1]]) + "\n"


def _parse_line(line: str) -> tuple[str, tuple[Verdict, float]] | None:
    """Return the key and the verdict of a line; None for one that makes no sense, as after a crash."""
    try:
        key, verdict, at = json.loads(line)
        return str(key), (Verdict(verdict), float(at))
    except (ValueError, TypeError):
        return None
