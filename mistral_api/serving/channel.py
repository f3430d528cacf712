"""One connection of a client: what it is waiting for, for how long it may, and how it ends.

Everything here runs in the event loop, but for :meth:`Channel.service`, which a thread of a lane calls, and
:meth:`Channel.write_soon`, which whoever sends the response calls: that thread, or a task of the loop.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from waitress import wasyncore
from waitress.channel import ClientDisconnected, HTTPChannel

from mistral_api.errors import ApiError, internal_error
from mistral_api.event_loop import waiting
from mistral_api.serving.connection_limits import ConnectionLimits
from mistral_api.serving.heartbeat import Heartbeat
from mistral_api.serving.refusals import RefusalTask
from mistral_api.serving.request_parser import RequestParser, too_slow
from mistral_api.serving.response_task import ResponseTask

log = logging.getLogger(__name__)


# What a task sends at most before others have their turn.
TURN_BYTES = 64 << 10


class Phase(Enum):
    """What a connection is at."""

    HEAD = "a request has begun, or none has come yet"
    IDLE = "a request was answered, and the next has not begun"
    BODY = "the head of a request has come, and its body is coming"
    SERVED = "a request waits, is being answered, or its answer is being sent"
    LINGERING = "a request was refused, and what its client still sends is dropped"


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a connection. ``group`` is what its address is counted as.

    ``refusal`` answers every request of a connection beyond the bounds, unless it has a lane of its own.
    """

    address: tuple[Any, ...]
    group: str
    new_parser: Callable[[object], RequestParser]
    refusal: ApiError | None


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no type hints
    """One connection. ``refused`` is set when one of its requests is answered with an error of the server."""

    refused = False
    request: Any
    requests: list[Any]
    _fileno: int | None
    current_outbuf_count: int

    def __init__(self, server: Any, connection: socket.socket, client: Client) -> None:
        now = time.monotonic()
        self.client = client
        self.parser_class = client.new_parser
        # When the present phase began, and for a body its present window; and when bytes were last sent.
        self.since = self._sent_at = self._body_began = now
        self._window_bytes = 0
        self._answered = self._lingering = False
        self._lingers_until = 0.0
        self._loop = server.loop
        self._at_close: list[Callable[[], None]] = []
        self._sent_in_turn = 0
        # What a task waits for that has more to send than the client has taken.
        self._drained: waiting.Signal | None = None
        super().__init__(server, connection, client.address, server.adj, map=server._map)
        self.update_interest()

    @property
    def phase(self) -> Phase:
        """What the connection is at now."""
        if self._lingering:
            return Phase.LINGERING
        if self.requests or self.total_outbufs_len or self.close_when_flushed:
            return Phase.SERVED
        if self.request is None:
            return Phase.IDLE if self._answered else Phase.HEAD
        return Phase.BODY if self.request.headers_finished else Phase.HEAD

    @property
    def body_cost(self) -> float:
        """What the body that is coming costs: the bytes it holds times the seconds since it began."""
        request = self.request
        return 0.0 if request is None else float(request.held_bytes) * (time.monotonic() - self._body_began)

    def unread_seconds(self, now: float) -> float:
        """Return for how long the client has taken nothing of an answer that waits for it; 0 where none waits."""
        return now - self._sent_at if self.total_outbufs_len else 0.0

    def received(self, data: bytes) -> bool:
        """Take bytes of the client."""
        if self._lingering:
            self.since = time.monotonic()
            return False
        if any(request.error for request in self.requests[-1:]):
            return False
        before = self.phase
        result: bool = super().received(data)
        now = self.phase
        if now is not before:
            self.since, self._window_bytes = time.monotonic(), 0
            self._body_began = self.since
        if now is Phase.BODY:
            self._window_bytes += len(data)
            self.server.connections.relieve()
        return result

    def refuse(self, error: ApiError) -> None:
        """Answer the request that is coming with this error, and read no more."""
        with self.requests_lock:
            request = self.request or self.parser_class(self.adj)
            self.request = None
            request.refuse(error)
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)

    def check_deadlines(self, now: float, limits: ConnectionLimits) -> None:
        """End what has taken too long."""
        phase, waited = self.phase, now - self.since
        if phase is Phase.HEAD and waited >= limits.header_seconds:
            if self.request is None:  # a connection opened ahead of need, by a browser for example
                self.handle_close()
            else:
                self.refuse(too_slow())
        elif phase is Phase.BODY and waited >= limits.body_window_seconds:
            self._check_body_rate(waited, limits)
        elif self._has_ended(phase, waited, now, limits):
            self.handle_close()

    def _has_ended(self, phase: Phase, waited: float, now: float, limits: ConnectionLimits) -> bool:
        if phase is Phase.IDLE:
            return waited >= limits.keep_alive_seconds
        if phase is Phase.LINGERING:
            return waited >= limits.linger_silence_seconds or now >= self._lingers_until
        return self.unread_seconds(now) >= limits.send_seconds

    def _check_body_rate(self, waited: float, limits: ConnectionLimits) -> None:
        if self._window_bytes < limits.body_rate * waited:
            self.refuse(too_slow())
        else:
            self.since, self._window_bytes = time.monotonic(), 0

    def service(self) -> None:
        """Answer the first request: on this thread as far as it computes, and in the loop where it only waits."""
        request = self.requests[0]
        if request.error:
            refusal = RefusalTask(self, request)
            self._run(refusal, refusal.service)
            self._end_request(refusal)
            return
        task = ResponseTask(self, request)
        if self.connected:
            self._run(task, task.begin)
        if not task.runs_as_task:
            self._send(task)
        elif self._may_wait_here(task) and self.server.lone_wait.acquire(blocking=False):
            try:
                self._send(task)
            finally:
                self.server.lone_wait.release()
        else:
            self._loop.spawn(partial(self._send_as_task, task))

    def _may_wait_here(self, task: ResponseTask) -> bool:
        """Whether this thread shall wait for a response, since nobody else waits for one: that is sooner done.

        A stream is not, for the loop tells its client that it waits.
        """
        return not self._loop.tasks and task.while_waiting is None

    def _send_as_task(self, task: ResponseTask) -> None:
        """Send a response in the loop, where it may wait for the model server."""
        heartbeat = Heartbeat(self._loop, task)
        try:
            self._send(task)
        finally:
            heartbeat.stop()

    def _send(self, task: ResponseTask) -> None:
        try:
            if self.connected and not task.failed:
                self._run(task, task.send)
        finally:
            self._run(task, task.close)
            self._end_request(task)

    def _run(self, task: Any, step: Callable[[], None]) -> None:
        """Do one step of an answer. A step that fails ends the connection, with an error where nothing was sent."""
        unforeseen = False
        try:
            step()
            return
        except ClientDisconnected:
            log.debug("the client left while %s was served", task.request.path)
        except OSError as error:
            log.debug("the connection failed while %s was served: %s", task.request.path, error)
        except Exception:
            log.exception("unforeseen failure in %s", task.request.path)
            unforeseen = True
        task.failed = task.close_on_finish = True
        if unforeseen and not task.wrote_header and not task.request.error:
            task.request.error = internal_error()
            refusal = RefusalTask(self, task.request)
            self._run(refusal, refusal.service)

    def _end_request(self, task: Any) -> None:
        """Go on to the next request of the connection, or close it."""
        self.since, self._answered = time.monotonic(), True
        self._at_close.clear()
        # The next response gets another buffer: this one would never be released.
        self.current_outbuf_count = self.adj.outbuf_high_watermark if self.current_outbuf_count else 0
        with self.requests_lock:
            if task.close_on_finish or not self.connected:
                self.close_when_flushed = True
                ended, self.requests = self.requests, []
            else:
                ended = [self.requests.pop(0)]
                if self.requests:
                    self.server.add_task(self)
                elif self.request is not None and self.request.expect_continue and self.request.headers_finished:
                    self.send_continue()
        for request in ended:
            request.close()
        self._note_change()

    def call_at_close(self, act: Callable[[], None]) -> None:
        """Have something done in the loop when the client leaves while its request is being served."""
        self._at_close.append(act)
        if not self.connected:
            self._loop.call_soon(self._tell_close)

    def write_soon(self, data: bytes) -> int:
        """Send, or keep until the client takes it; one that takes nothing is waited for.

        Raises ClientDisconnected.
        """
        if self.total_outbufs_len > self.adj.outbuf_high_watermark and waiting.in_task():
            self._wait_until_drained()
        with self.outbuf_lock:
            sent = 0
            if not self.total_outbufs_len:
                self._sent_at = time.monotonic()
                sent = self.send(data, do_close=False) if self.connected else 0
            if sent < len(data):
                super().write_soon(data[sent:])
        if self.total_outbufs_len:
            self._note_change()
        self._give_turn(len(data))
        return len(data)

    def _give_turn(self, sent: int) -> None:
        """Let others go on where a task sends much without waiting for it, as an answer from the cache."""
        self._sent_in_turn += sent
        if self._sent_in_turn >= TURN_BYTES:
            self._sent_in_turn = 0
            waiting.give_turn()

    def _wait_until_drained(self) -> None:
        while self.connected and self.total_outbufs_len > self.adj.outbuf_high_watermark:
            self._drained = waiting.Signal()
            self._drained.wait()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the socket takes now."""
        sent: int = super().send(data, do_close=do_close)
        if sent:
            self._sent_at = time.monotonic()
        return sent

    def readable(self) -> bool:
        """Whether the loop shall read from the connection."""
        return self._fileno is not None and (self._lingering or bool(super().readable()))

    def writable(self) -> bool:
        """Whether the loop shall write. A connection that was closed in this round of the loop is still asked."""
        return self._fileno is not None and bool(super().writable())

    def handle_write(self) -> None:
        """Send what waits. The connection of a refused request is not closed at once."""
        if self.refused and self.close_when_flushed and not self.will_close:
            self._flush_exception(self._flush_some)
            if not self.connected:  # the client has reset the connection, which is closed
                return
            if not self.will_close and not self.total_outbufs_len:
                self._linger()
                return
        super().handle_write()

    def _linger(self) -> None:
        """Say that no more is sent, and read on.

        A socket that is closed while there are unread bytes resets the connection: the client may lose the answer.
        """
        self.close_when_flushed = False
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client has left
            self.handle_close()
            return
        self._lingering, self.since = True, time.monotonic()
        self._lingers_until = self.since + self.server.limits.linger_seconds

    def handle_close(self) -> None:
        """Close the connection, and release what its requests hold."""
        super().handle_close()
        if self.request is not None:
            self.request.close()
        if self._drained is not None:
            self._drained.set()
        self._tell_close()

    def _tell_close(self) -> None:
        acts, self._at_close = self._at_close, []
        for act in acts:
            act()

    def del_channel(self, map: Any = None) -> None:
        """Leave the loop."""
        if self._fileno is not None:
            self._loop.forget(self._fileno)
            self.server.connections.remove(self)
        super().del_channel(map)

    def cancel(self) -> None:
        """Close the connection of a request that no thread has taken when the server stops."""
        super().cancel()
        self._note_change()

    def close_soon(self) -> None:
        """Close the connection in the next round of the loop: an event of this one must not meet a new socket."""
        self.will_close = True
        self.update_interest()

    def update_interest(self) -> None:
        """Have the loop watch the connection for what it is waiting for now."""
        if self._fileno is not None:
            self._loop.watch(
                self._fileno,
                self._on_readable if self.readable() else None,
                self._on_writable if self.writable() else None,
            )

    def _note_change(self) -> None:
        """Have the loop look at what the connection waits for; any thread may call this."""
        if self._loop.is_current:
            self.update_interest()
        else:
            self._loop.call_soon(self.update_interest)

    def _on_readable(self) -> None:
        wasyncore.read(self)
        self.update_interest()

    def _on_writable(self) -> None:
        wasyncore.write(self)
        if self._drained is not None and self.total_outbufs_len <= self.adj.outbuf_high_watermark:
            self._drained.set()
        self.update_interest()
