"""The standard streams of a server: written by a thread, in the order of what was logged and printed."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TextIO

from mistral_api.system.line_writer import LineWriter

# What is written to a pipe at once stays whole (PIPE_BUF), whoever else writes to it.
PIECE_BYTES = 4096
# A terminal or a pipe that another program has made non-blocking is tried again after so long.
FULL_SECONDS = 0.05


class ConsoleOutput:
    """Writes to a standard stream past its buffers: no lock of theirs is held by a write that nobody reads.

    (Python's end waits for the lock of the stream's buffer, or aborts.) A terminal that is gone costs its lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        buffer = getattr(stream, "buffer", None)
        self._raw = buffer if isinstance(buffer, io.RawIOBase) else getattr(buffer, "raw", None)
        if self._raw is not None:
            with suppress(OSError, ValueError):
                stream.flush()

    def write(self, texts: Sequence[str]) -> None:
        """Write texts, which have their own line breaks. Waits as long as nobody reads."""
        # The disk behind it is full, or the stream is closed: nobody could be told.
        with suppress(OSError, ValueError):
            if self._raw is None:
                self.stream.write("".join(texts))
                self.stream.flush()
                return
            for piece in pieces([self._encoded(text) for text in texts], PIECE_BYTES):
                _write_whole(self._raw, piece)

    def _encoded(self, text: str) -> bytes:
        if os.linesep != "\n":
            text = text.replace("\n", os.linesep)
        return text.encode(self.stream.encoding, self.stream.errors or "strict")


def _write_whole(raw: io.RawIOBase, data: bytes) -> None:
    while data:
        written = raw.write(data)
        if written is None:
            time.sleep(FULL_SECONDS)
        else:
            data = data[written:]


def pieces(lines: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """Join lines to pieces of so many bytes at most; a longer line is a piece of its own."""
    joined: list[bytes] = []
    size = 0
    for line in lines:
        if joined and size + len(line) > most_bytes:
            yield b"".join(joined)
            joined, size = [], 0
        joined.append(line)
        size += len(line)
    if joined:
        yield b"".join(joined)


class QueuedStream:
    """Stands for a standard stream: what is printed to it is queued like the lines of the log, and never fails."""

    def __init__(self, output: ConsoleOutput, writer: LineWriter) -> None:
        self._output = output
        self._writer = writer
        self._begun = ""

    def write(self, text: str) -> int:
        """Queue the lines that are whole."""
        whole, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            self._writer.put(self._output.write, whole + end)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Queue the beginning of a line as it is."""
        begun, self._begun = self._begun, ""
        if begun:
            self._writer.put(self._output.write, begun)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output.stream, name)
