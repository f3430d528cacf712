"""The answer to one request: the application is called, and the body of its response is sent.

Waitress does both at once, on a thread. Here they are two steps, since a body that only waits is sent by the event
loop, without a thread. A chunked response does not end its connection, as it does in waitress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from types import TracebackType
from typing import Any, cast

from waitress.task import WSGITask, hop_by_hop

from mistral_api.event_loop.wsgi import BEFORE_SENDING, ON_DISCONNECT, RUNS_AS_TASK, WHILE_WAITING

# What in the environment of a request holds that environment: of ours, and of Werkzeug.
_HOLDING = (WHILE_WAITING, BEFORE_SENDING, "werkzeug.request")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class ResponseTask(WSGITask):  # type: ignore[misc] # waitress has no type hints
    """One request on its way out: :meth:`begin`, :meth:`send`, and :meth:`close` at the end."""

    status: str
    response_headers: list[tuple[str, str]]
    content_length: int | None
    environ: dict[str, Any] | None
    wrote_header: bool
    # Whether a step of it failed: nothing more is sent.
    failed = False
    # How often something was sent.
    pieces_sent = 0
    _body: Iterable[bytes] = ()

    def begin(self) -> None:
        """Call the application. What it returns is sent by :meth:`send`, and has to be closed in any case."""
        self.start()
        environ: dict[str, Any] = self.get_environment()
        environ[ON_DISCONNECT] = self.channel.call_at_close
        self._body = self.channel.server.application(environ, self._start_response)

    @property
    def runs_as_task(self) -> bool:
        """Whether the body waits in a way that the event loop can bear."""
        return RUNS_AS_TASK in (self.environ or ())

    @property
    def while_waiting(self) -> Callable[[], bytes | None] | None:
        """What returns the bytes that are sent while the body is waited for."""
        return None if self.environ is None else self.environ.get(WHILE_WAITING)

    def send(self) -> None:
        """Send the body, and end the response."""
        before_sending = (self.environ or {}).get(BEFORE_SENDING)
        for chunk in self._body:
            if chunk:
                if before_sending is not None:
                    before_sending(chunk, self._is_last(chunk))
                self.write(chunk)
        if before_sending is not None:
            before_sending(b"", True)
        self._require_whole()
        self.finish()

    def _is_last(self, chunk: bytes) -> bool:
        """Return whether the body is whole with this part."""
        length = self.content_length
        return length is not None and self.content_bytes_written + len(chunk) >= length

    def close(self) -> None:
        """Close the body, whether it was sent or not."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Take apart what holds itself, so that it is released now, and not by a collection of garbage much later.

        The body has our ``start_response``, and the environment has what has the environment.
        """
        self._body = ()
        for name in _HOLDING:
            (self.environ or {}).pop(name, None)

    def _require_whole(self) -> None:
        """Close the connection behind a body that is shorter than was said: its client would wait for the rest."""
        missing = self.content_length is not None and self.content_bytes_written != self.content_length
        if missing and self.request.command != "HEAD":
            self.set_close_on_finish()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self.wrote_header:
            raise exc_info[1]
        self.complete = True
        self.status, self.response_headers = status, []
        for name, value in headers:
            lower = name.lower()
            if lower in hop_by_hop:
                raise ValueError(f"{name} is a header of the server's own")
            if lower == "content-length":
                self.content_length = int(value)
            else:
                self.response_headers.append((name, value))
        return cast("Callable[[bytes], None]", self.write)

    def build_response_header(self) -> bytes:
        """Return the head of the response, as HTTP/1.1 or 1.0 has it (RFC 9112)."""
        wants = self.request.headers.get("CONNECTION", "").lower()
        lines = [f"HTTP/{self.version} {self.status}"]
        lines += [f"{name}: {value}" for name, value in self.response_headers]
        if self.has_body and self.content_length is not None:
            lines.append(f"Content-Length: {self.content_length}")
        elif self.has_body and self.version == "1.1" and self.request.command != "HEAD":
            lines.append("Transfer-Encoding: chunked")
            self.chunked_response = True
        elif self.has_body and self.version == "1.0":  # the end of the connection is the end of the body
            self.close_on_finish = True
        if self.version == "1.0":
            self.close_on_finish = self.close_on_finish or wants != "keep-alive"
        elif wants == "close":
            self.close_on_finish = True
        if self.close_on_finish:
            lines.append("Connection: close")
        elif self.version == "1.0":
            lines.append("Connection: Keep-Alive")
        lines.append(f"Date: {http_date()}\r\n\r\n")
        return "\r\n".join(lines).encode("latin-1")

    def set_close_on_finish(self) -> None:
        """Close the connection at the end of the response; the client is told where its head has not been sent yet."""
        self.close_on_finish = True

    def write(self, data: bytes) -> None:
        """Send a part of the body; before the first one, the head of the response."""
        if not self.complete:
            raise RuntimeError("start_response was not called before body written")
        head = b""
        if not self.wrote_header:
            head = self.build_response_header()
            self.wrote_header = True
        self.pieces_sent += 1
        self.channel.write_soon(head + self._framed(data))

    def _framed(self, data: bytes) -> bytes:
        """Return a part of the body as it is sent."""
        if not data or not self.has_body or self.request.command == "HEAD":
            return b""
        if self.chunked_response:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self.content_length is not None:
            data = data[: self.content_length - self.content_bytes_written]
            self.content_bytes_written += len(data)
        return data


_date = (0, "")


def http_date() -> str:
    """Return the time as the header ``Date`` has it; it is formatted once a second."""
    global _date  # noqa: PLW0603 - threads that replace it at once replace it by the same
    now = int(time.time())
    known, text = _date
    if known != now:
        text = formatdate(now, usegmt=True)
        _date = (now, text)
    return text
