"""The bytes of requests that are being received, wait or have not been read yet, over all connections."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import IO, Any


class HeldBytes:
    """The sum of what all requests hold, in memory or in temporary files. Any thread may change it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """The bytes held now."""
        return self._total

    @property
    def exceeded(self) -> bool:
        """Whether more is held than allowed."""
        return self._total > self._most

    def change(self, share: HeldShare, count: int) -> None:
        """Let one request hold so many bytes from now on."""
        with self._lock:
            self._total += count - share.count
            share.count = count


class HeldShare:
    """What one request holds of the sum."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class BodyStream(io.RawIOBase):
    """The body of a request as the application reads it. What has been read to its end is released at once.

    A stream lasts minutes, and its request needs the body for milliseconds.
    """

    def __init__(self, body: IO[bytes], length: int, release: Callable[[], None]) -> None:
        super().__init__()
        self._body = body
        self._left = length
        self._release = release

    def readable(self) -> bool:
        """Whether the stream can be read: it can."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; 0 at the end of the body."""
        if self._left <= 0:
            return 0
        data = self._body.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        if self._left <= 0 or not data:
            self._left = 0
            self._release()
        return len(data)
