"""Responses in the background: generated a few at a time, while their clients poll, follow or cancel them.

With several API processes each generates its own. :class:`OtherRunners` is what a process knows of those of the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue

from mistral_api.errors import Unavailable
from mistral_api.responses.background_response import BackgroundResponse, LiveResponse

log = logging.getLogger(__name__)

# More waiting responses than this are refused, and more bytes of the prompts that wait with them.
MOST_WAITING = 1000
MOST_WAITING_BYTES = 256 << 20
# The events of so many ended responses can still be followed: the newest ones, while they take no more bytes.
FOLLOWED_AFTER_END = 100
MOST_EVENT_BYTES = 32 << 20


def is_room(size: int, waiting: Sequence[int]) -> bool:
    """Return whether a prompt of ``size`` bytes may wait beside those of these sizes."""
    return not waiting or (len(waiting) < MOST_WAITING and sum(waiting) + size <= MOST_WAITING_BYTES)


class OtherRunners:
    """What a process knows of the responses in the background of the others. Here: there are no other processes."""

    def find(self, _owner: str, _response_id: str) -> LiveResponse | None:
        """Return an owner's response that another process generates. Raises Unavailable."""
        return None

    def require_known(self, _owner: str, _response_id: str) -> None:
        """Raise Unavailable for a response whose process has ended, and whose end is not recorded yet."""

    def has_room(self, size: int, waiting: Sequence[int]) -> bool:
        """Return whether a prompt of ``size`` bytes may wait beside those of this process. Raises Unavailable."""
        return is_room(size, waiting)

    def register(self, _owner: str, _response_id: str, _size: int) -> None:
        """Have the others find a response of this process. Raises Unavailable."""

    def note_end(self, _response_id: str) -> None:
        """Note that a response of this process has ended."""

    def turn(self) -> AbstractContextManager[object]:
        """Wait until the next response may be generated, and hold that turn in the block."""
        return nullcontext()


class BackgroundRunner:
    """Owns the threads that generate, until :meth:`close`. They are daemons: no process waits for them at its end."""

    def __init__(self, most_threads: int, others: OtherRunners | None = None) -> None:
        """``most_threads``: how many responses are generated at the same time, in all processes."""
        self._others = OtherRunners() if others is None else others
        self._lock = threading.Lock()
        self._most_threads = most_threads
        self._threads: list[threading.Thread] = []
        self._waiting: SimpleQueue[BackgroundResponse] = SimpleQueue()
        self._live: OrderedDict[str, BackgroundResponse] = OrderedDict()
        self._closing = False

    def require_room(self, size: int) -> None:
        """Raise Unavailable (``overloaded``) where too much waits already to add a prompt of ``size`` bytes."""
        if self._closing:
            raise _shutting_down()
        if not self._others.has_room(size, self.waiting_sizes()):
            raise Unavailable("Too many responses wait to be generated.", code="overloaded", retry_after=30)

    def waiting_sizes(self) -> list[int]:
        """Return the bytes of each prompt of this process whose response has not ended."""
        return [live.size for live in self._unended()]

    def add(self, live: BackgroundResponse) -> None:
        """Generate a response as soon as there is a thread for it. Raises Unavailable."""
        response_id = live.response["id"]
        live.announce()
        live.on_end = lambda: self._others.note_end(response_id)
        self._others.register(live.owner, response_id, live.size)
        with self._lock:
            self._live[response_id] = live
            self._forget_ended()
            if not self._closing:
                self._waiting.put(live)
                self._start_thread()
                return
        live.stop("shutdown", _shutting_down())

    def _start_thread(self) -> None:
        if len(self._threads) < self._most_threads:
            name = f"background-response-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._generate, name=name, daemon=True))
            self._threads[-1].start()

    def _generate(self) -> None:
        while True:
            try:
                live = self._waiting.get()
                with self._others.turn():
                    live.generate()
            except Exception:
                log.exception("a response in the background could not be brought to its end")

    def _forget_ended(self) -> None:
        ended = [(name, live.event_bytes) for name, live in self._live.items() if live.ended]
        size = sum(each for _, each in ended)
        for number, (name, freed) in enumerate(ended):
            if len(ended) - number <= FOLLOWED_AFTER_END and size <= MOST_EVENT_BYTES:
                break
            size -= freed
            del self._live[name]

    def _unended(self) -> list[BackgroundResponse]:
        with self._lock:
            return [live for live in self._live.values() if not live.ended]

    def find(self, owner: str, response_id: str) -> LiveResponse | None:
        """Return an owner's response that is being generated, or whose events can still be followed, in any process.

        Raises Unavailable.
        """
        return self.find_here(owner, response_id) or self._others.find(owner, response_id)

    def require_known(self, owner: str, response_id: str) -> None:
        """Raise Unavailable for a response whose process has ended, and whose end is not recorded yet."""
        self._others.require_known(owner, response_id)

    def find_here(self, owner: str, response_id: str) -> BackgroundResponse | None:
        """Return an owner's response of this process."""
        live = self._live.get(response_id)
        return live if live is not None and live.owner == owner else None

    def forget(self, response_id: str) -> None:
        """Forget a response that was deleted."""
        with self._lock:
            self._live.pop(response_id, None)

    def forget_session(self, owner: str, session_id: str) -> None:
        """Forget the ended responses of a conversation that was deleted or changed."""
        self._forget(lambda live: (live.owner, live.response["session_id"]) == (owner, session_id))

    def forget_before(self, moment: float) -> None:
        """Forget the ended responses that were made before a moment in Unix seconds."""
        self._forget(lambda live: live.response["created_at"] < moment)

    def _forget(self, matches: Callable[[BackgroundResponse], bool]) -> None:
        with self._lock:
            for name in [name for name, live in self._live.items() if live.ended and matches(live)]:
                del self._live[name]

    def close_queue(self) -> None:
        """Take no more responses. Those whose generation has not begun end now, and are recorded as failed."""
        with self._lock:
            self._closing = True
        for live in self._unended():
            live.stop_waiting(_shutting_down())

    def close(self, seconds: float = 5.0) -> None:
        """Take no more responses, and end all. Wait for at most ``seconds``."""
        self.close_queue()
        unended = self._unended()
        for live in unended:
            live.stop("shutdown", _shutting_down())
        deadline = time.monotonic() + seconds
        for live in unended:
            live.wait(max(0.0, deadline - time.monotonic()))


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down.", code="overloaded", retry_after=5)
