"""``python -m mistral_api.serving.api_process``: another API process of ``bin/serve`` (API_PROCESSES), which starts it.

Its arguments are its number, the listening socket, one end of a pair of sockets to the first process, the file of
``connection_shares``, and the version that this must be. A byte on its standard input asks for an orderly stop, and so
does a signal. The end of its standard input, which the death of the first process is too, and a second signal, ask it
not to wait for running requests.
"""

from __future__ import annotations

import gc

from mistral_api.system.process_end import end  # before all others
from mistral_api.system.quiet_interrupt import end_quietly_at_interrupt

if __name__ == "__main__":
    end_quietly_at_interrupt()
    gc.disable()  # until main(), as in serving/__main__.py

import contextlib
import logging
import os
import queue
import socket
import sys
import threading
import time
from dataclasses import dataclass

from mistral_api.application import create_app, prepare_database
from mistral_api.errors import StartError
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import Siblings
from mistral_api.services import services_of
from mistral_api.serving.api_processes import ALIVE, SERVING
from mistral_api.serving.application_server import ApplicationServer
from mistral_api.serving.connection_shares import ConnectionShares
from mistral_api.serving.interpreter import keep_for_good, set_for_serving
from mistral_api.serving.program_version import program_version
from mistral_api.settings import SettingError, Settings, settings_from
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.logs import configure_server_log
from mistral_api.system.processes import handle_stop_signals

log = logging.getLogger(__name__)

# The longest wait of the main thread without a look around.
POLL_SECONDS = 0.5
_STANDARD_INPUT = 0


class StopOrders:
    """What signals and the first process have asked of this one so far. Construct it in the main thread."""

    def __init__(self) -> None:
        # Whether to stop, and whether to end running requests.
        self.stop = self.at_once = False
        self._signals = 0
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        handle_stop_signals(self._note_signal)
        threading.Thread(target=self._read_input, name="parent-watch", daemon=True).start()

    def _note_signal(self, _number: int) -> None:
        self._signals += 1
        self._note(at_once=self._signals > 1)

    def _read_input(self) -> None:
        """Read the standard input to its end, without Python's own file, whose lock would stay held."""
        try:
            while os.read(_STANDARD_INPUT, 1):
                self._note(at_once=False)
        except OSError:  # it is closed
            pass
        self._note(at_once=True)

    def note_lost_connection(self) -> None:
        """Stop at once: the first process has ended, or cannot be asked anything any more."""
        self._note(at_once=True)

    def _note(self, *, at_once: bool) -> None:
        self.stop, self.at_once = True, self.at_once or at_once
        self._news.put(None)

    def wait(self, seconds: float = POLL_SECONDS) -> None:
        """Wait for the next order, for at most so long."""
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=seconds)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What this process has from the first one. The sockets are this object's user's to close."""

    number: int
    listener: socket.socket
    connection: socket.socket
    shares: ConnectionShares
    version: str

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> Inheritance:
        """Read the command line."""
        number, listener, connection, shares_file, version = arguments
        shares = ConnectionShares(int(shares_file), int(number) - 1)
        os.close(int(shares_file))
        return cls(int(number), _socket(int(listener)), _socket(int(connection)), shares, version)


def _socket(number: int) -> socket.socket:
    """Return the socket of an inherited file descriptor, which no child of ours shall inherit."""
    inherited = socket.socket(fileno=number)
    inherited.set_inheritable(False)
    return inherited


def main(arguments: list[str]) -> int:
    """Serve until asked to stop; return an ExitCode."""
    set_for_serving()
    escape_unprintable_output()
    orders, inherited = StopOrders(), Inheritance.from_arguments(arguments)
    try:
        # Those of the first process, which has put its .env into the environment: the file may have been changed since.
        settings = settings_from(os.environ)
        configure_server_log(settings.log_options, "api")
        if inherited.version != program_version():
            log.error(
                "API process %d does not serve: the program was changed since the server started; restart the server",
                inherited.number,
            )
            return ExitCode.OTHER_VERSION
        return _run(settings, inherited, orders)
    except (SettingError, StartError) as error:
        print(f"API process {inherited.number}: {error}", file=sys.stderr)
        return ExitCode.CANNOT_START


def _run(settings: Settings, inherited: Inheritance, orders: StopOrders) -> int:
    first = Peer(inherited.connection, "the first API process")
    first.on_end(orders.note_lost_connection)
    first.handle(ALIVE, lambda: None)
    app = create_app(settings, delivers=False, siblings=Siblings(first=first))
    services = services_of(app.extensions)
    server = ApplicationServer(app, inherited.listener, settings, inherited.shares)
    try:
        server.start_loop()
        first.start(server.loop)
        if not orders.stop:
            prepare_database(app)
        if not orders.stop:
            services.start()
            server.start()
            keep_for_good()  # the application
            first.tell(SERVING)
        while server.running and not orders.stop:
            orders.wait()
        return ExitCode.OK if orders.stop else ExitCode.FAILED
    finally:
        server.begin_stop()
        _wait_for_requests(server, settings.shutdown_seconds, orders)
        server.close()
        services.close()
        first.close()


def _wait_for_requests(server: ApplicationServer, seconds: float, orders: StopOrders) -> None:
    """Let requests finish, for at most so long, and then end them."""
    deadline = time.monotonic() + seconds
    while not server.wait_until_idle(0.1):
        if orders.at_once or time.monotonic() >= deadline:
            log.warning("running requests are ended: %s", "asked to" if orders.at_once else "they took too long")
            server.end_requests()
            return


if __name__ == "__main__":
    end(main(sys.argv[1:]))
