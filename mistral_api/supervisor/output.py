"""The model server's own output: to a rotating file, its last lines kept to be quoted."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from mistral_api.supervisor.files import MAIN

engine_log = logging.getLogger("llama.cpp")

FILE_BYTES, FILES = 10 << 20, 3
# Enough for the messages around a failed load with the model's description between them, or before a backtrace.
LAST_LINES = 500
QUOTED_LINES = 4
# A line without an end is cut here: garbage must not fill the memory.
LONGEST_LINE = 8 << 10
# llama.cpp begins its lines with the time since its start, and a letter for the level.
_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] ")


def log_file(data_dir: Path, server: str = MAIN) -> Path:
    """The file that holds a model server's output."""
    return data_dir / "logs" / f"{server}.log"


class OutputLog:
    """Owns the log file from its making to :meth:`close`; one reader thread for each server process."""

    def __init__(self, path: Path) -> None:
        """Open the file, making its folder if need be. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        # When the server last said anything: also the dots of a load, which are no whole line (monotonic).
        self.last_output_at = time.monotonic()

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        """Read a process's output until it ends, in a thread that closes the stream."""
        self._lines.clear()
        self.last_output_at = time.monotonic()
        thread = threading.Thread(target=self._read, args=(stream,), name="model-server-output", daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            rest = b""
            while piece := stream.read(LONGEST_LINE):  # unbuffered: whatever there is
                self.last_output_at = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) >= LONGEST_LINE:
                    self._take(rest)
                    rest = b""
            if rest:
                self._take(rest)

    def _take(self, raw: bytes) -> None:
        line = raw[:LONGEST_LINE].decode("utf-8", errors="replace").rstrip()
        self._lines.append(line)
        self._handler.emit(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
        engine_log.debug("%s", line)

    def lines(self) -> list[str]:
        """The last lines of the server that runs, or ran last, without the empty ones."""
        return [line.strip() for line in list(self._lines) if line.strip()]

    def last_words(self) -> str:
        """Why a load failed, in one line: the first lines that speak of an error, since what follows comes of
        them, or else simply the last ones."""
        lines = list(dict.fromkeys(_STAMP.sub("", line) for line in self.lines()))
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return " / ".join(errors[:QUOTED_LINES] or lines[-QUOTED_LINES:])[:1000]

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
