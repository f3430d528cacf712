"""The model server's own output: to a rotating file, its last lines kept to be quoted."""

from __future__ import annotations

import logging
import threading
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

log = logging.getLogger("llama.cpp")

FILE_BYTES, FILES = 10 << 20, 3
LAST_LINES = 50
QUOTED_LINES = 4


def log_file(data_dir: Path) -> Path:
    """The file that holds the model server's output."""
    return data_dir / "logs" / "model-server.log"


class OutputLog:
    """Owns the log file from its making to :meth:`close`; one reader thread for each server process."""

    def __init__(self, path: Path) -> None:
        """Open the file, making its folder if need be. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
        self._lines: deque[str] = deque(maxlen=LAST_LINES)

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        """Read a process's output until it ends, in a thread that closes the stream."""
        self._lines.clear()
        thread = threading.Thread(target=self._read, args=(stream,), name="model-server-output", daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", errors="replace").rstrip()
                self._lines.append(line)
                self._handler.emit(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
                log.debug("%s", line)

    def last_words(self) -> str:
        """The last lines that speak of an error, or simply the last ones, in one line."""
        lines = [line.strip() for line in list(self._lines) if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return " / ".join((errors or lines)[-QUOTED_LINES:])[:1000]

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
