"""What the application does before the client has the end of a response: our web server lets it (BEFORE_SENDING)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from mistral_api.event_loop.wsgi import BEFORE_SENDING
from mistral_api.serving.response_task import ResponseTask

EVENTS = [b"data: 1\n\n", b"", b"data: [DONE]\n\n"]


class Exchange:
    """One request to an application that answers with this body; ``log``: what was done and sent, in order."""

    def __init__(self, body: list[bytes], *, length: int | None, method: str = "GET") -> None:
        self._body, self._length = body, length
        self.log: list[Any] = []
        parser = HTTPRequestParser(Adjustments())
        parser.received(f"{method} / HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        server = SimpleNamespace(application=self._answer, effective_port=80, server_name="test", adj=Adjustments())
        channel = SimpleNamespace(
            server=server,
            addr=("127.0.0.1", 1),
            write_soon=self._sent,
            call_at_close=None,
            check_client_disconnected=None,
        )
        task = ResponseTask(channel, parser)
        task.begin()
        task.send()
        task.close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ[BEFORE_SENDING] = lambda piece, is_last: self.log.append((piece, is_last))
        headers = [] if self._length is None else [("Content-Length", str(self._length))]
        start_response("200 OK", headers)
        return self._body

    def _sent(self, data: bytes) -> None:
        self.log.append(data.rpartition(b"\r\n\r\n")[2] if data.startswith(b"HTTP/") else data)


def test_a_whole_body_is_announced_before_its_last_bytes() -> None:
    assert Exchange([b"one", b"two"], length=6).log == [(b"one", False), b"one", (b"two", True), b"two", (b"", True)]


def test_each_event_is_announced_before_it_is_sent_and_the_end_before_its_chunk() -> None:
    log = Exchange(EVENTS, length=None).log
    assert [each for each in log if isinstance(each, tuple)] == [(EVENTS[0], False), (EVENTS[2], False), (b"", True)]
    assert [isinstance(each, tuple) for each in log] == [True, False] * 3
    assert log[-1] == b"0\r\n\r\n"


@pytest.mark.parametrize(("body", "length", "method"), [([], 0, "GET"), ([], 5, "HEAD")])
def test_a_response_without_a_body_is_announced_before_its_head(body: list[bytes], length: int, method: str) -> None:
    assert Exchange(body, length=length, method=method).log[:2] == [(b"", True), b""]
