"""Looking up the name of a model server, so that a resolver that hangs holds up nobody beyond a deadline.

The system's resolver (``getaddrinfo``) blocks its thread, takes no deadline and cannot be ended. So it runs on a thread
that nobody joins: one at a time for a server, whose result is for all who wait for it. Addresses need no resolver.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from mistral_api.event_loop.waiting import Signal
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.connection_errors import HostNotFound, NotConnected

# How long what the resolver said is reused, unless no connection can be made to it.
FRESH_SECONDS = 10.0

# The family and the address of each socket that may be connected to.
Addresses = list[tuple[int, Any]]


class _LookUp:
    """One question to the resolver; ``waiters`` are told when it is answered."""

    __slots__ = ("error", "found", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Signal] = []
        self.found: Addresses | None = None
        self.error: Exception | None = None


class NameLookup:
    """The addresses of one host and port. Safe to use from many threads, and in tasks."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._lock = threading.Lock()
        self._known: Addresses = []
        self._known_until = float("-inf")
        self._running: _LookUp | None = None

    def addresses(self, call: UpstreamCall, seconds: float) -> Addresses:
        """Return the addresses; the call can end the waiting.

        Raises HostNotFound, and NotConnected where the resolver does not answer within ``seconds``, or the call ends.
        """
        known = self._known
        if known and time.monotonic() < self._known_until:
            return known
        with contextlib.suppress(OSError, UnicodeError):
            return self._resolved(socket.AI_NUMERICHOST)
        signal = Signal()
        look_up = self._join(signal)
        try:
            with call.waking(signal.set):
                signal.wait(seconds)
        finally:
            with self._lock:
                if signal in look_up.waiters:
                    look_up.waiters.remove(signal)
        if look_up.error is not None:
            raise HostNotFound(self._host) from look_up.error
        if look_up.found is None:
            raise NotConnected(self._host) from TimeoutError("its name is not resolved in time")
        return look_up.found

    def forget(self) -> None:
        """Have the resolver asked again: nothing answers where it said."""
        self._known_until = float("-inf")

    def _join(self, signal: Signal) -> _LookUp:
        """Have a signal set at the end of the question that is being asked, or that is asked now."""
        with self._lock:
            look_up = self._running
            if look_up is None:
                look_up = _LookUp()
                threading.Thread(target=self._ask, args=(look_up,), name="engine-host-lookup", daemon=True).start()
                self._running = look_up
            look_up.waiters.append(signal)
            return look_up

    def _ask(self, look_up: _LookUp) -> None:
        try:
            look_up.found = self._resolved()
        except Exception as error:  # noqa: BLE001 - raised again by each who waits for it
            look_up.error = error
        with self._lock:
            self._running = None
            if look_up.found:
                self._known, self._known_until = look_up.found, time.monotonic() + FRESH_SECONDS
            waiters, look_up.waiters = look_up.waiters, []
        for signal in waiters:
            signal.set()

    def _resolved(self, flags: int = 0) -> Addresses:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)
        return [(family, address) for family, _, _, _, address in found]
