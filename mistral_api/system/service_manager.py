"""What a process tells the service manager that runs it: systemd's datagrams of sd_notify(3).

Standard library alone, and no log of its own beyond one warning: this is ground floor, for the API and the
supervisor. Where nobody listens (a terminal, a container, Windows) every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

# The manager reads its socket at all times; one that does not is not waited for.
SEND_SECONDS = 1.0


class ServiceManager:
    """Tells the service manager how this process is. One owner, one thread: the process's main loop.

    A failed message is a warning in the log, once: the manager's deadlines then decide.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """``address`` as in NOTIFY_SOCKET; ``watchdog_seconds``: silence after which the manager ends us."""
        self._address = address
        self._alive_every = watchdog_seconds / 2 if watchdog_seconds else None
        self._said_alive_at: float | None = None
        self._warned = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> ServiceManager:
        """The manager that started this process, if it wants to hear from us.

        Takes its variables out of the environment: our children must not speak for us. ``WATCHDOG_PID``, where
        it is set, names the process that the watchdog is about (sd_watchdog_enabled(3)).
        """
        variables = os.environ if environment is None else environment
        address = variables.pop("NOTIFY_SOCKET", None)
        microseconds = variables.pop("WATCHDOG_USEC", "")
        about = variables.pop("WATCHDOG_PID", str(os.getpid()))
        watched = microseconds.isdigit() and about == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def ready(self) -> None:
        """Start-up is over: what waits for this service may go on, and the watchdog begins."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def alive(self) -> None:
        """Feed the watchdog; call it on every turn of the main loop, it speaks only as often as need be."""
        now = time.monotonic()
        if self._alive_every is None or (self._said_alive_at and now - self._said_alive_at < self._alive_every):
            return
        if self._send("WATCHDOG=1"):
            self._said_alive_at = now

    def stopping(self) -> None:
        """The process is about to end, by its own decision or because it was asked to."""
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping goes on for up to so long from now: the manager must not lose patience before."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, message: str) -> bool:
        """Whether the manager has it. A name that begins with @ is an abstract socket (unix(7))."""
        if sys.platform == "win32" or not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto(message.encode(), address)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the service manager cannot be told how this process is: %s", error)
