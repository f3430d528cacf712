"""Cancelling an upstream request from another thread, while its own thread is blocked waiting for bytes.

An :class:`UpstreamCall` is one request to the model server. The pooled connection that the request is sent on gives
the call its socket. Cancelling shuts the socket down: the blocked read returns at once, and the model server, which
sees its client leave, frees the slot. :class:`DisconnectWatcher` is the one thread that asks, for all calls in flight,
whether their client is still there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from mistral_api.tracing.trace import NO_TRACE

# How often the clients are checked: an abandoned request keeps its slot no longer than this.
WATCH_INTERVAL_SECONDS = 0.1
_IDLE_POLL_SECONDS = 0.02

_current = threading.local()


def _do_nothing() -> None:
    """Nothing is to be asked before a retry, or to be woken."""


class UpstreamCall:
    """One request to the model server; ``reason`` says why it was cancelled, if it was."""

    def __init__(self, client_gone: Callable[[], bool] | None = None) -> None:
        self._client_gone = client_gone
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.reason: str | None = None
        # Called before the request is sent to another process of the model server. What it raises ends the request.
        self.before_retry: Callable[[], None] = _do_nothing
        # The trace of the request that the call belongs to.
        self.trace = NO_TRACE
        # The position in the queue for a slot when the request began to wait; 0 where it does not wait.
        self.queue_position = 0
        # Returns the position as it is now, while the request waits.
        self.position_now: Callable[[], int] | None = None
        # Whether the model server is known to take the request: it fits, and renders.
        self.accepted = False
        self._wake: Callable[[], None] = _do_nothing

    @property
    def cancelled(self) -> bool:
        """Whether the call has been told to end."""
        return self.reason is not None

    def client_is_gone(self) -> bool:
        """Whether the client has closed its connection, as far as the HTTP server can tell."""
        return self._client_gone is not None and self._client_gone()

    @property
    def watches_client(self) -> bool:
        """Whether :meth:`client_is_gone` knows anything."""
        return self._client_gone is not None

    def begin_wait(self, wake: Callable[[], None], position: int, position_now: Callable[[], int]) -> None:
        """Note that the request waits for a slot. ``wake`` is called when the call is cancelled."""
        with self._lock:
            self.position_now, self._wake = position_now, wake
        self.queue_position = self.queue_position or position

    def end_wait(self) -> None:
        """Note that the request waits for a slot no longer."""
        with self._lock:
            self.position_now, self._wake = None, _do_nothing

    def attach(self, connection: socket.socket) -> None:
        """Take the socket that the call now uses; one that comes too late is shut down at once."""
        with self._lock:
            self._socket = connection
            if self.cancelled:
                _shut_down(connection)

    def cancel(self, reason: str) -> None:
        """End the call. ``reason``: ``"client"`` when the client left, ``"shutdown"`` when this server stops."""
        with self._lock:
            if self.cancelled:
                return
            self.reason = reason
            if self._socket is not None:
                _shut_down(self._socket)
            wake = self._wake
        wake()

    def release(self) -> None:
        """Release the socket: it goes back to the pool, and must not be shut down there."""
        with self._lock:
            self._socket = None

    def __enter__(self) -> UpstreamCall:
        _current.call = self
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _current.call = None


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer has closed it already
        connection.shutdown(socket.SHUT_RDWR)


def current_call() -> UpstreamCall | None:
    """Return the call that this thread is sending, if any; connections ask for it."""
    call: UpstreamCall | None = getattr(_current, "call", None)
    return call


class DisconnectWatcher:
    """Owns the calls in flight, and the thread that cancels those whose client has left."""

    def __init__(self) -> None:
        self._calls: set[UpstreamCall] = set()
        self._lock = threading.Lock()
        # Set while the thread has something to look at. It is cleared by the thread alone, once it has found nothing:
        # so a request that follows another one wakes no thread, whose turn would come out of its own time.
        self._is_busy = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, call: UpstreamCall) -> None:
        """Watch a call until :meth:`remove`; the thread starts with the first one."""
        with self._lock:
            self._calls.add(call)
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._watch, name="disconnect-watcher", daemon=True)
                self._thread.start()
            if not self._is_busy.is_set():
                self._is_busy.set()

    def remove(self, call: UpstreamCall) -> None:
        """Stop watching a call that has ended."""
        call.release()
        with self._lock:
            self._calls.discard(call)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no call is in flight, for at most ``seconds``. Return whether none is."""
        deadline = time.monotonic() + seconds
        while self._calls:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _IDLE_POLL_SECONDS))
        return True

    def cancel_all(self, reason: str) -> None:
        """Cancel every call in flight."""
        for call in self._in_flight():
            call.cancel(reason)

    def close(self) -> None:
        """Cancel all calls and end the thread."""
        self.cancel_all("shutdown")
        with self._lock:
            self._closing.set()
            self._is_busy.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _in_flight(self) -> list[UpstreamCall]:
        with self._lock:
            return list(self._calls)

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._is_busy.wait()
            for call in self._in_flight():
                if call.client_is_gone():
                    call.cancel("client")
            self._closing.wait(WATCH_INTERVAL_SECONDS)
            self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        with self._lock:
            if not self._calls and not self._closing.is_set():
                self._is_busy.clear()
