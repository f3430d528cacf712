"""How a process tells others on the same DATA_DIR what it has deleted, so that they forget it too.

The notices are lines of a file: JSON with owner and session id; with owner, nothing and the id of a response that was
deleted alone, or nothing where another answer was; or, after the retention has deleted what is old, with the moment
before which that was last used. A process reads what was added since it last looked, which costs one look at the size
of the file. The file begins anew when it has become large.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import orjson
from filelock import FileLock, Timeout

from mistral_api.system.files import replace_file

MAX_BYTES = 1 << 20
LOCK_SECONDS = 2.0


class Deleted(NamedTuple):
    """What an owner has deleted or changed: a conversation, a single response, or, without either, an answer."""

    owner: str
    session_id: str = ""
    response_id: str = ""


class DeletionNotices:
    """The file in a folder of DATA_DIR. Any thread may add; one thread at a time reads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "deleted-conversations.jsonl"
        self._path_name = str(self._path)
        self._lock = FileLock(folder / "deleted-conversations.lock", timeout=LOCK_SECONDS, mode=0o600)
        self._file, self._read = self._state()

    def add(self, owner: str, session_id: str) -> None:
        """Tell the other processes. Raises OSError where the file cannot be written."""
        self._add_line([owner, session_id])

    def add_answer(self, owner: str, response_id: str = "") -> None:
        """Tell the other processes that an answer was deleted, a response where it has an id. Raises OSError."""
        self._add_line([owner, "", response_id])

    def add_retention(self, before: float) -> None:
        """Tell all processes that what was last used before a moment (Unix seconds) is deleted. Raises OSError."""
        self._add_line([before])

    def _add_line(self, notice: list[str] | list[float]) -> None:
        line = orjson.dumps(notice).decode() + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with self._lock:
                if self._state()[1] > MAX_BYTES:
                    replace_file(self._path, line)
                    return
                self._path.touch(mode=0o600)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
        except Timeout as error:
            raise OSError(f"{self._path} is locked") from error

    def _state(self) -> tuple[int, int]:
        """Return which file is there, and its size; zeros where there is none."""
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(self._path_name)
            return stat.st_ino, stat.st_size
        return 0, 0

    def read_new(self) -> list[Deleted | float]:
        """Return what was deleted since this object was made, or the last call: what its owner has deleted, or the
        moment before which it was last used.

        Raises OSError.
        """
        file, size = self._state()
        if file != self._file or size < self._read:
            self._file, self._read = file, 0
        if size == self._read:
            return []
        with self._path.open("rb") as opened:
            opened.seek(self._read)
            added = opened.read(size - self._read)
        lines = added[: added.rfind(b"\n") + 1]
        self._read += len(lines)
        return [_notice(orjson.loads(line)) for line in lines.splitlines()]


def _notice(line: list[str] | list[float]) -> Deleted | float:
    return float(line[0]) if len(line) == 1 else Deleted(*map(str, line))
