"""The service manager that runs this process, and the messages that it gets: systemd's datagrams of sd_notify(3).

Standard library alone, for the API and the supervisor. Where nobody listens (a terminal, a container, Windows) every
call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

# The manager reads its socket at all times; a manager that does not is not waited for.
SEND_TIMEOUT_SECONDS = 1.0


class ServiceManager:
    """Reports the state of this process to the service manager. Only the process's main loop calls it.

    The first message that fails is logged as a warning: the manager's deadlines then decide.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """``address`` is as in NOTIFY_SOCKET; after ``watchdog_seconds`` of silence the manager ends this process."""
        self._address = address
        self._feed_seconds = watchdog_seconds / 2 if watchdog_seconds else None
        self._fed_at: float | None = None
        self._warned = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> ServiceManager:
        """Return the manager that started this process, from its variables.

        Takes them out of the environment: our children must not send messages for us. ``WATCHDOG_PID``, where it is
        set, names the process that the watchdog watches (sd_watchdog_enabled(3)).
        """
        variables = os.environ if environment is None else environment
        address = variables.pop("NOTIFY_SOCKET", None)
        microseconds = variables.pop("WATCHDOG_USEC", "")
        watched_pid = variables.pop("WATCHDOG_PID", str(os.getpid()))
        watched = microseconds.isdigit() and watched_pid == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def notify_ready(self) -> None:
        """Report that the start is over: units that wait for this one go on, and the watchdog begins."""
        self._send("READY=1")

    def notify_status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def feed_watchdog(self) -> None:
        """Feed the watchdog. Call this on every turn of the main loop: it sends a message only as often as needed."""
        now = time.monotonic()
        if self._feed_seconds is None or (self._fed_at and now - self._fed_at < self._feed_seconds):
            return
        if self._send("WATCHDOG=1"):
            self._fed_at = now

    def notify_stopping(self) -> None:
        """Report that the process is about to end, by its own decision or because it was asked to."""
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask the manager to wait up to so long from now for the start or the stop to end."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, message: str) -> bool:
        """Return whether the manager has got the message. A name that begins with @ is an abstract socket (unix(7))."""
        if sys.platform == "win32" or not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_TIMEOUT_SECONDS)
                sender.sendto(message.encode(), address)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the service manager cannot be told how this process is: %s", error)
