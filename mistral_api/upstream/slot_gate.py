"""A fair share of the model server's slots for every owner.

llama.cpp gives a slot that is free to the request that has waited longest, so an owner with many requests in flight
keeps all others waiting. While several owners may call, or have called within some minutes, no more requests are sent
than there are slots. Those that wait here go in turn: next is the owner with the fewest slots, and of several the one
whose last request began first.

Where there is one owner alone, nothing is held back: what waits does so in the model server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mistral_api.errors import ModelTimeout
from mistral_api.upstream.cancellation import WATCH_INTERVAL_SECONDS, UpstreamCall
from mistral_api.upstream.errors import cancelled_error

# After so long without a request of a second owner, the only one has the model server alone.
ALONE_AFTER_SECONDS = 600.0

Release = Callable[[], None]


def _tell_nobody(seconds: float) -> None:
    """Do nothing."""


class _Waiter:
    """A request for ``count`` slots. ``admission`` is there where it has to wait for them, and set when it has them."""

    __slots__ = ("admission", "admitted", "count", "owner")

    def __init__(self, owner: str, count: int) -> None:
        self.owner, self.count = owner, count
        self.admitted = False
        self.admission: threading.Event | None = None

    def admit(self) -> None:
        """Let the request go on."""
        self.admitted = True
        if self.admission is not None:
            self.admission.set()


class SlotGate:
    """Admits generations to one model server. Safe to use from many threads."""

    def __init__(self, slots: int | None, longest_wait: float, is_shared: Callable[[], bool] = lambda: False) -> None:
        """``slots``: how many there are; None, where nobody knows, holds nothing back. ``longest_wait``: in seconds.

        ``is_shared``: whether owners share the slots although one alone generates.
        """
        self._slots = slots
        self._longest_wait = longest_wait
        self._is_always_shared = is_shared
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._busy = 0
        self._waiting: list[_Waiter] = []
        # The number of the admission that an owner had last; owners without a request are forgotten.
        self._admissions = 0
        self._last_admission: dict[str, int] = {}
        self._last_owner: str | None = None
        self._shared_until = 0.0
        self._closed = False
        # Told how long each generation waited that had to, in seconds.
        self.on_wait: Callable[[float], None] = _tell_nobody

    def enter(self, owner: str, count: int, call: UpstreamCall) -> Release:
        """Return once a request that takes ``count`` slots may be sent. What is returned has to be called at its end.

        Raises what ends the call, and ModelTimeout.
        """
        if self._slots is None:
            return _nothing
        waiter = _Waiter(owner, min(count, self._slots))
        with self._lock:
            self._note_owner(owner)
            if self._closed:
                raise cancelled_error("shutdown")
            self._waiting.append(waiter)
            self._admit()
            if not waiter.admitted:
                waiter.admission = threading.Event()
        if waiter.admission is not None:
            self._wait(waiter, waiter.admission, call)
        return self._releaser(waiter)

    @property
    def busy(self) -> int:
        """How many slots generations of this process have, as far as there are so many."""
        return min(self._busy, self._slots or 0)

    @property
    def waiting(self) -> int:
        """How many generations of this process wait for a slot: here, or in the model server beyond its slots."""
        return len(self._waiting) + max(0, self._busy - (self._slots or 0))

    def _note_owner(self, owner: str) -> None:
        if owner != self._last_owner:
            if self._last_owner is not None:
                self._shared_until = time.monotonic() + ALONE_AFTER_SECONDS
            self._last_owner = owner

    def _admit(self) -> None:
        """Admit those whose turn it is, as far as there are slots for them. The lock is held."""
        while self._waiting:
            waiter = self._next()
            if self._busy + waiter.count > (self._slots or 0) and self._is_shared():
                return
            self._waiting.remove(waiter)
            self._busy += waiter.count
            self._running[waiter.owner] = self._running.get(waiter.owner, 0) + waiter.count
            self._admissions += 1
            self._last_admission[waiter.owner] = self._admissions
            waiter.admit()

    def _next(self) -> _Waiter:
        """Return the request whose turn it is: of equal ones the first that came."""
        if len(self._waiting) == 1:
            return self._waiting[0]
        running, last = self._running, self._last_admission
        return min(self._waiting, key=lambda each: (running.get(each.owner, 0), last.get(each.owner, 0)))

    def _is_shared(self) -> bool:
        return time.monotonic() < self._shared_until or self._is_always_shared()

    def _wait(self, waiter: _Waiter, admission: threading.Event, call: UpstreamCall) -> None:
        began = time.monotonic()
        deadline = began + self._longest_wait
        try:
            while not admission.wait(WATCH_INTERVAL_SECONDS):
                if call.client_is_gone():
                    call.cancel("client")
                if call.cancelled or self._closed:
                    raise cancelled_error(call.reason or "shutdown")
                if time.monotonic() >= deadline:
                    raise ModelTimeout("No slot of the model server became free in time.")
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            self.on_wait(time.monotonic() - began)

    def _leave(self, waiter: _Waiter) -> None:
        """Take back a request that waits no longer, or that has just been admitted."""
        with self._lock:
            if waiter.admitted:
                self._free(waiter)
            else:
                self._waiting.remove(waiter)
            self._admit()

    def _releaser(self, waiter: _Waiter) -> Release:
        """Return what ends a request: its first call frees the slots, later ones do nothing."""
        held = [waiter]

        def release() -> None:
            with self._lock:
                if held:
                    self._free(held.pop())
                    self._admit()

        return release

    def _free(self, waiter: _Waiter) -> None:
        self._busy -= waiter.count
        self._running[waiter.owner] -= waiter.count
        if not self._running[waiter.owner]:
            del self._running[waiter.owner]
            if not any(each.owner == waiter.owner for each in self._waiting):
                self._last_admission.pop(waiter.owner, None)

    def close(self) -> None:
        """Admit nobody any more; those that wait end within a tenth of a second."""
        with self._lock:
            self._closed = True


def _nothing() -> None:
    """Free nothing: nothing is held back."""
