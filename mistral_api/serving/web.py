"""waitress in a thread of its own, so that the main thread can decide when to stop it.

Stopping goes through waitress's own trigger, which runs a function inside its loop: nothing is
closed under its feet (waitress/trigger.py).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable

from flask import Flask
from waitress import wasyncore
from waitress.server import create_server

from mistral_api.serving.channel import Channel
from mistral_api.settings import Settings

# More open connections than threads: idle keep-alive connections must not lock others out.
CONNECTION_LIMIT = 1000
FLUSH_SECONDS = 2.0


class WebServer:
    """Owns waitress's loop thread from :meth:`start` to :meth:`close`."""

    def __init__(self, app: Flask, listener: socket.socket, settings: Settings) -> None:
        self._server = create_server(
            app,
            sockets=[listener],
            threads=settings.api_threads,
            connection_limit=CONNECTION_LIMIT,
            # Lets the application see that a client has left while its request is being worked on.
            channel_request_lookahead=1,
            max_request_body_size=settings.max_request_bytes + (1 << 20),
            asyncore_use_poll=hasattr(wasyncore.select, "poll"),
            # A proxy on this machine must be recognisable: security looks for its headers.
            clear_untrusted_proxy_headers=False,
            ident=None,
        )
        self._server.channel_class = Channel
        self._thread = threading.Thread(target=self._server.run, name="waitress", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the loop is alive."""
        return self._thread.is_alive()

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""

        def close_listener() -> None:
            self._server.del_channel()
            self._server.socket.close()

        self._in_loop(close_listener)

    def close(self) -> None:
        """Let the threads end, send what is still to be sent, close every connection."""
        self._server.task_dispatcher.shutdown()
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._unsent() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._in_loop(lambda: wasyncore.close_all(self._server._map))
        self._thread.join(timeout=5)

    def _unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in list(self._server.active_channels.values()))

    def _in_loop(self, thunk: Callable[[], None]) -> None:
        if not self.running:
            return
        try:
            self._server.trigger.pull_trigger(thunk)
        except OSError as error:
            # Somebody else's pull had the loop run the thunk, which closed the trigger, before ours.
            if error.errno != errno.EBADF:
                raise
