"""The web server: waitress, in a thread of its own, so that the main thread can decide when to stop it.

The listening socket is bound before anything else is started. What is refused before the application sees it gets our
error bodies. Waitress's loop asks every connection in every round what it is waiting for. Its place is taken by
:class:`~mistral_api.event_loop.loop.EventLoop`, which the connections tell.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIApplication

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from mistral_api.control.listening import bind_address
from mistral_api.errors import ApiError
from mistral_api.event_loop.loop import EventLoop
from mistral_api.serving.connection_limits import connection_limits
from mistral_api.serving.connection_shares import ConnectionShares
from mistral_api.serving.connections import Connections
from mistral_api.serving.hooks import Hooks
from mistral_api.serving.lanes import Lanes
from mistral_api.serving.request_parser import RequestParser
from mistral_api.settings import Settings
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
STOP_SECONDS = 5.0
# How often deadlines are looked at.
CHECK_SECONDS = 1.0
# How many waiting connections are accepted before the others get their turn.
ACCEPTED_AT_ONCE = 64
# How long another API process, which has fewer connections, has to accept one, and for how long that counts.
LEFT_SECONDS, LEFT_BEFORE_SECONDS = 0.001, 0.01
# The process, or the system, has no more sockets.
_NO_MORE_SOCKETS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Pending output of one response beyond which its application waits for the client.
UNSENT_BYTES = 1 << 20


class _Server(TcpWSGIServer):  # type: ignore[misc] # waitress has no type hints
    """Waitress's server, which never stops accepting, and looks at deadlines. All of it runs in the loop."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        connections: Connections,
        loop: EventLoop,
        **more: Any,
    ) -> None:
        self.connections = connections
        self.limits = connections.limits
        self.loop = loop
        # Held by the one thread that waits for a response by itself.
        self.lone_wait = threading.Lock()
        self._warn = ThrottledWarning(log)
        # When what waits was last left to others.
        self._left_at = float("-inf")
        info = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(app, {}, _sock=listener, bind_socket=False, sockinfo=info, **more)

    def note_refusal(self, error: ApiError, request: RequestParser, request_id: str) -> None:
        """Tell whoever wants to know that a request was refused before the application saw it."""
        self.connections.hooks.on_refusal(error, request.head, request_id)

    def pull_trigger(self) -> None:
        """Wake no loop: our connections tell theirs what they are waiting for."""

    def begin(self) -> None:
        """Begin to accept connections."""
        if self.connections.shares is not None:
            self.connections.shares.note(len(self.connections))
        self._accept_again()
        self._check_deadlines()

    def _accept_again(self) -> None:
        if self.accepting:
            self.loop.watch(self._fileno, self.handle_accept, None)

    def _check_deadlines(self) -> None:
        """Look at the deadlines of all connections, again and again."""
        self.loop.call_later(CHECK_SECONDS, self._check_deadlines)
        self.connections.check_deadlines()
        report = self.connections.closed.take_report(time.monotonic())
        if report is not None:
            self.task_dispatcher.add_aside(report)

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections stay open."""
        if self._fileno is not None:
            self.loop.forget(self._fileno)
            self.accepting = False
            if self.connections.shares is not None:
                self.connections.shares.note_absent()
            self.del_channel()
            self.socket.close()

    def handle_accept(self) -> None:
        """Accept what waits, some at a time."""
        for _ in range(ACCEPTED_AT_ONCE):
            if self._leaves_to_others() or not self._accept_one():
                return

    def _leaves_to_others(self) -> bool:
        """Leave what waits to another process with fewer connections, for a moment, and then accept one."""
        shares = self.connections.shares
        if shares is None or not shares.has_most:
            return False
        now = time.monotonic()
        if now < self._left_at + LEFT_BEFORE_SECONDS:
            self._left_at = float("-inf")
            return False
        self._left_at = now
        self.loop.forget(self._fileno)
        self.loop.call_later(LEFT_SECONDS, self._accept_again)
        return True

    def _accept_one(self) -> bool:
        """Accept one connection; return whether another may wait."""
        try:
            accepted = self.accept()
        except OSError as error:
            return self._accept_later(error)
        if accepted is None:
            return False
        connection, address = accepted
        try:
            self.set_socket_options(connection)
        except OSError:  # the client has left already (macOS)
            connection.close()
            return True
        self.connections.admit(self, connection, address)
        return True

    def _accept_later(self, error: OSError) -> bool:
        """Make room where there are no sockets left, and wait a little where nothing can be closed."""
        if error.errno not in _NO_MORE_SOCKETS:
            return False
        self._warn("no connection can be accepted: %s", error.strerror)
        if self.connections.evict() == 0:
            self.loop.forget(self._fileno)
            self.loop.call_later(CHECK_SECONDS, self._accept_again)
        return False


class WebServer:
    """Waitress and the thread of its loop, from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        settings: Settings,
        hooks: Hooks | None = None,
        shares: ConnectionShares | None = None,
    ) -> None:
        """``shares``: of the API processes that accept at the same listening socket."""
        limits = connection_limits(settings)
        adjustments = Adjustments(
            sockets=[listener],
            # Lets the application see that a client has left while its request is processed.
            channel_request_lookahead=1,
            max_request_header_size=limits.header_bytes,
            # Our parser has the exact bound; this one only stands behind it.
            max_request_body_size=limits.body_bytes + (1 << 20),
            outbuf_high_watermark=UNSENT_BYTES,
            asyncore_use_poll=hasattr(wasyncore.select, "poll"),
            # A proxy on this machine must be recognisable: security looks for its headers.
            clear_untrusted_proxy_headers=False,
            ident=None,
        )
        self.connections = Connections(limits, hooks or Hooks(), shares)
        self._loop = EventLoop()
        self._server = _Server(
            app,
            listener,
            self.connections,
            self._loop,
            dispatcher=Lanes(settings.api_threads, limits.queued_requests, self._loop),
            adj=adjustments,
        )
        self._thread = threading.Thread(target=self._loop.run, name="waitress", daemon=True)

    @property
    def loop(self) -> EventLoop:
        """The loop in which connections and tasks wait."""
        return self._loop

    def start_loop(self) -> None:
        """Run the loop, and accept no connection yet."""
        self._thread.start()

    def start(self) -> None:
        """Begin to serve requests; the loop is started unless it runs."""
        if self._thread.ident is None:
            self.start_loop()
        self._loop.call_soon(self._server.begin)

    @property
    def running(self) -> bool:
        """Whether the loop still runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        waiting: int = self._server.task_dispatcher.waiting
        return waiting

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections stay open."""
        self._loop.call_soon(self._server.stop_accepting)

    def close(self) -> None:
        """Let threads and tasks end, send the rest of every response, and close every connection."""
        self._server.task_dispatcher.shutdown()
        _poll_until(lambda: self._loop.tasks == 0, STOP_SECONDS)
        _poll_until(lambda: not self._has_unsent(), FLUSH_SECONDS)
        self._loop.stop()
        self._thread.join(timeout=STOP_SECONDS)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # which also releases the body of a request that is not there yet
        wasyncore.close_all(self._server._map)

    def _has_unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in list(self._server.active_channels.values()))


def _poll_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def bind_listener(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet. Raises StartError."""
    return bind_address(host, port, host_setting="API_HOST", port_setting="API_PORT")
