"""Responses in the background: generated a few at a time, while their clients poll, follow or cancel them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from uuid import UUID

from mistral_api.errors import ApiError, Unavailable
from mistral_api.event_loop.waiting import Signal
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import split_events

log = logging.getLogger(__name__)

# More waiting responses than this are refused, and more bytes of the prompts that wait with them.
MOST_WAITING = 1000
MOST_WAITING_BYTES = 256 << 20
# The events of so many ended responses can still be followed: the newest ones, while they take no more bytes.
FOLLOWED_AFTER_END = 100
MOST_EVENT_BYTES = 32 << 20
# A comment is sent this often, which shows whether a follower is still there (HTML standard, section 9.2.7).
PING_INTERVAL_SECONDS = 5.0
_PING = b": ping\n\n"


class BackgroundResponse:
    """A response in the background: its events so far, for any number of followers."""

    def __init__(self, owner: str, run: ResponseRun, call: UpstreamCall, size: int) -> None:
        """``size``: the bytes of the prompt."""
        self.owner, self.size = owner, size
        # Released at the end: it holds the whole prompt.
        self._run: ResponseRun | None = run
        self._response = run.response
        self._call = call
        self._lock = threading.Lock()
        # Set at the next change, and replaced by another one.
        self._changed = Signal()
        self._events: list[bytes] = []
        self._started = False
        self.ended = False
        self.event_bytes = 0

    @property
    def response(self) -> Response:
        """The Response object as it is now."""
        run = self._run
        return self._response if run is None else run.response

    @property
    def input(self) -> list[tuple[UUID, ChatMessage]] | None:
        """The messages of its input, and their ids; None when it has ended: the store has them then."""
        run = self._run
        return None if run is None else run.input

    def announce(self) -> None:
        """Make the response's first events."""
        if self._run is not None:
            self._add(self._run.pipeline.first_events())

    def generate(self) -> None:
        """Generate the response, on the thread that calls this."""
        run = self._claim()
        if run is None:
            return
        try:
            self._add(run.renderer.start())
            for events in run.pipeline:
                self._add(events, run if run.pipeline.exchange.ended else None)
        finally:
            self._end(run)

    def cancel(self) -> None:
        """End the response; one that has not begun ends at once."""
        self.stop("client", ClientClosedRequest("The response was cancelled."))

    def stop(self, reason: str, error: ApiError) -> None:
        """End the response for a reason that :class:`UpstreamCall` knows."""
        self._call.cancel(reason)
        self.stop_waiting(error)

    def stop_waiting(self, error: ApiError) -> None:
        """End the response if its generation has not begun."""
        run = self._claim()
        if run is None:
            return
        try:
            self._add(run.pipeline.fail(error))
        finally:
            self._end(run)

    def wait(self, seconds: float) -> bool:
        """Wait until the response has ended, for at most ``seconds``. Return whether it has."""
        self._wait_for(lambda: self.ended, seconds)
        return self.ended

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds, for at most ``seconds``; a task or a thread may call this."""
        deadline = time.monotonic() + seconds
        while True:
            changed = self._changed
            left = deadline - time.monotonic()
            if condition() or left <= 0:
                return
            changed.wait(left)

    def follow(self, after: int = -1) -> Iterator[bytes]:
        """Yield the events after that sequence number, as they come, to the last one."""
        sent, ended = after + 1, False
        while not ended:
            events, ended = self._since(sent)
            sent += len(events)
            yield from events or ([] if ended else [_PING])

    def _since(self, number: int) -> tuple[list[bytes], bool]:
        """Wait a while for the events from that number on. Return them, and whether they are the last ones."""
        self._wait_for(lambda: self.ended or len(self._events) > number, PING_INTERVAL_SECONDS)
        with self._lock:
            return self._events[number:], self.ended

    def _claim(self) -> ResponseRun | None:
        """Return the run to the first caller, who must bring it to its end; None to all others."""
        with self._lock:
            first, self._started = not self._started, True
        return self._run if first else None

    def _add(self, events: bytes, ended_run: ResponseRun | None = None) -> None:
        """Add events. With the last ones, after which clients may continue the response, its run has ended."""
        with self._lock:
            self._events += [event + b"\n\n" for event in split_events(events)]
            self.event_bytes += len(events)
            if ended_run is not None:
                self._response, self._run, self.ended = ended_run.response, None, True
            changed, self._changed = self._changed, Signal()
        changed.set()

    def _end(self, run: ResponseRun) -> None:
        self._add(b"", run)


class BackgroundRunner:
    """Owns the threads that generate, until :meth:`close`. They are daemons: no process waits for them at its end."""

    def __init__(self, most_threads: int) -> None:
        """``most_threads``: how many responses are generated at the same time."""
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
        waiting = [live.size for live in self._unended()]
        if waiting and (len(waiting) >= MOST_WAITING or sum(waiting) + size > MOST_WAITING_BYTES):
            raise Unavailable("Too many responses wait to be generated.", code="overloaded", retry_after=30)

    def add(self, live: BackgroundResponse) -> None:
        """Generate a response as soon as there is a thread for it."""
        live.announce()
        with self._lock:
            self._live[live.response["id"]] = live
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
                self._waiting.get().generate()
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

    def find(self, owner: str, response_id: str) -> BackgroundResponse | None:
        """Return an owner's response that is being generated, or whose events can still be followed."""
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
