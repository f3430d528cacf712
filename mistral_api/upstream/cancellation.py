"""Cancelling a request to the model server from elsewhere, while whoever sends it waits for bytes.

An :class:`UpstreamCall` is one request to the model server. The connection that the request is sent on gives the call
its socket. Cancelling shuts the socket down: a thread that is blocked by it, or a task that waits for it in the event
loop, goes on at once, and the model server, which sees its client leave, frees the slot.

Whoever owns the client's connection tells the call that the client has left (:meth:`UpstreamCall.client_left`). Where
the HTTP server tells nobody, it has to be asked: :class:`DisconnectWatcher` is the one thread that does so.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from mistral_api.errors import ApiError
from mistral_api.tracing.trace import NO_TRACE

# How often the clients are checked: an abandoned request keeps its slot no longer than this.
WATCH_INTERVAL_SECONDS = 0.1
_IDLE_POLL_SECONDS = 0.02


def _do_nothing() -> None:
    """Do nothing before a retry, or at the end of a call."""


# Returns whether the model server is known to take a request: False where that cannot be told, None where it is not
# known yet. It may take a while; what it gets returns whether that is still of interest. Raises ModelServerRefused.
Check = Callable[[Callable[[], bool]], bool | None]


class QueuePlace(Protocol):
    """The place of a request in the queue for a slot."""

    @property
    def position(self) -> int:
        """How many have their turn until the request has its own, itself among them, as far as that is known."""

    def refuse(self, error: ApiError) -> None:
        """Have the wait end with an error, unless it has ended."""


class UpstreamCall:
    """One request to the model server; ``reason`` says why it was cancelled, if it was."""

    __slots__ = (
        "_client_gone",
        "_lock",
        "_on_cancel",
        "_socket",
        "answered",
        "before_retry",
        "check",
        "cut_off",
        "is_notified",
        "place",
        "promised",
        "queue_position",
        "reason",
        "trace",
    )

    def __init__(self, client_gone: Callable[[], bool] | None = None, *, is_notified: bool = False) -> None:
        """``client_gone`` asks the HTTP server whether the client has left. ``is_notified``: nobody needs to ask, since
        the client's connection calls :meth:`client_left` when it closes."""
        self._client_gone = client_gone
        self.is_notified = is_notified or client_gone is None
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._on_cancel: Callable[[], None] = _do_nothing
        self.reason: str | None = None
        # Called before the request is sent to another process of the model server. What it raises ends the request.
        self.before_retry: Callable[[], None] = _do_nothing
        # The trace of the request that the call belongs to.
        self.trace = NO_TRACE
        # The place in the queue for a slot, while the request waits there; and its position when it began to wait, 0
        # where it did not.
        self.place: QueuePlace | None = None
        self.queue_position = 0
        # Whether the client has been told already that an answer comes: the request is never one too many then.
        self.promised = False
        # Whether the model server has begun to answer; and what asks it, until then, whether it takes the request.
        self.answered = False
        # Whether a request has ended that the model server may still be at.
        self.cut_off = False
        self.check: Check | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the call has been told to end."""
        return self.reason is not None

    def client_is_gone(self) -> bool:
        """Whether the client has closed its connection, as far as the HTTP server can tell."""
        return self._client_gone is not None and self._client_gone()

    def client_left(self) -> None:
        """End the call, since its client has left. Any thread may call this, and the event loop: it never waits."""
        self.cancel("client")

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
            on_cancel = self._on_cancel
        on_cancel()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have ``wake`` called where the call is cancelled in the block, for a wait that no socket ends.

        It is called at once where the call has been cancelled before, by any thread otherwise, and must not wait.
        """
        with self._lock:
            self._on_cancel = wake
            cancelled = self.cancelled
        try:
            if cancelled:
                wake()
            yield
        finally:
            self._on_cancel = _do_nothing

    def release(self) -> None:
        """Release the socket: it goes back to the pool, and must not be shut down there."""
        with self._lock:
            self._socket = None


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer has closed it already
        # The socket's own method: that of a TLS socket takes its state away from whoever reads it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class DisconnectWatcher:
    """Owns the calls in flight, and the thread that cancels those whose client has left.

    The thread asks only for those calls that nobody notifies.
    """

    def __init__(self) -> None:
        self._calls: set[UpstreamCall] = set()
        self._asked_for: set[UpstreamCall] = set()
        self._lock = threading.Lock()
        # Set while the thread has something to look at. It is cleared by the thread alone, once it has found nothing:
        # so a request that follows another one wakes no thread, whose turn would come out of its own time.
        self._is_busy = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, call: UpstreamCall) -> None:
        """Watch a call until :meth:`remove`; the thread starts with the first one that has to be asked for."""
        with self._lock:
            self._calls.add(call)
            if call.is_notified:
                return
            self._asked_for.add(call)
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
            self._asked_for.discard(call)

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
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel(reason)

    def close(self) -> None:
        """Cancel all calls and end the thread."""
        self.cancel_all("shutdown")
        with self._lock:
            self._closing.set()
            self._is_busy.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._is_busy.wait()
            with self._lock:
                calls = list(self._asked_for)
            for call in calls:
                if call.client_is_gone():
                    call.client_left()
            self._closing.wait(WATCH_INTERVAL_SECONDS)
            self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        with self._lock:
            if not self._asked_for and not self._closing.is_set():
                self._is_busy.clear()
