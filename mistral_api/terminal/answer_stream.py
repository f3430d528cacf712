"""One answer while it is written: its chunks as they arrive, and its end at once when nobody wants it any more.

A thread reads them, because Windows does not interrupt a read for Ctrl-C; whoever iterates only waits for the thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import cast

from mistral_api.payload_types.completions import Chunk
from mistral_api.terminal.server import CONNECT_SECONDS, AnswerCut, ChatError, Refused, Server

# The server itself gives a silent model server up before that (MODEL_WAIT_SECONDS, MODEL_READ_SECONDS).
SILENCE_SECONDS = 900.0
# How often whoever waits gets the chance to show that, and Windows to deliver Ctrl-C.
TICK_SECONDS = 0.1
_CLOSE_SECONDS = 2.0
# No event is longer.
_LINE_BYTES = 64 << 20


class AnswerStream:
    """A chat completion that is streamed. Iterate once; :meth:`close` it in the end, whatever has happened."""

    def __init__(self, server: Server, payload: Mapping[str, object], request_id: str) -> None:
        """Send the request. ``payload`` is its body; ``request_id`` is what the server will call it."""
        self._server = server
        self._body = json.dumps({**payload, "stream": True, "stream_options": {"include_usage": True}}).encode()
        self._request_id = request_id
        self._arrived: queue.SimpleQueue[Chunk | ChatError | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self.keeps_sessions = True
        self._reader = threading.Thread(target=self._read, name="answer-reader", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Chunk | None]:
        """Yield the chunks, and None each time that nothing has arrived for TICK_SECONDS. Raises ChatError."""
        while True:
            try:
                arrived = self._arrived.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if arrived is None:
                return
            if isinstance(arrived, ChatError):
                raise arrived
            yield arrived

    def close(self) -> None:
        """End the request: the server notices it and stops generating."""
        self._closed.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(_CLOSE_SECONDS)

    def _read(self) -> None:
        """Put every chunk into the queue, then the error or None."""
        connection = self._server.address.connection(CONNECT_SECONDS)
        try:
            self._read_response(connection)
            self._arrived.put(None)
        except ChatError as error:
            self._arrived.put(error)
        except (OSError, http.client.HTTPException) as error:
            self._arrived.put(self._server.no_answer(error))
        finally:
            connection.close()

    def _read_response(self, connection: http.client.HTTPConnection) -> None:
        self._server.connect(connection, SILENCE_SECONDS)
        self._socket = connection.sock
        if self._closed.is_set():
            return
        headers = self._server.headers() | {"X-Request-Id": self._request_id}
        connection.request("POST", self._server.target("/v1/chat/completions"), self._body, headers)
        with connection.getresponse() as response:
            if response.status != 200:
                self._server.read_object(response)
            self.keeps_sessions = "X-Session-Id" in response.headers
            self._read_events(response)

    def _read_events(self, response: http.client.HTTPResponse) -> None:
        """Take the events, of which each is one line here; the lines between them are empty, or comments."""
        try:
            while line := response.readline(_LINE_BYTES):
                if not line.startswith(b"data:"):
                    continue
                if (data := line[5:].strip()) == b"[DONE]":
                    return
                self._take(data)
        except (OSError, http.client.HTTPException) as error:
            raise self._cut() from error
        raise self._cut()

    def _take(self, event: bytes) -> None:
        try:
            data = json.loads(event.decode(errors="replace"))
        except ValueError as not_json:
            sentence = f"What came from {self._server.address} in the middle of the answer is no JSON."
            raise AnswerCut(sentence) from not_json
        error = data.get("error") if isinstance(data, dict) else None
        if isinstance(error, dict):
            raise Refused(str(error.get("message")), 200, error.get("code"))
        if isinstance(data, dict):
            self._arrived.put(cast("Chunk", data))

    def _cut(self) -> AnswerCut:
        return AnswerCut(f"The connection to {self._server.address} broke off in the middle of the answer.")
