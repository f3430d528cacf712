"""Responses that are generated while nobody waits: a few at a time, to be polled, followed or cancelled."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from mistral_api.errors import ApiError, Unavailable
from mistral_api.responses.response_object import Response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.response_store import InputMessages
from mistral_api.responses.stream_events import encoded
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest

log = logging.getLogger(__name__)

# Waiting responses beyond this many are refused, and beyond so many bytes of what they have the model read.
MOST_WAITING = 1000
MOST_WAITING_BYTES = 256 << 20
# The events of so many responses that have ended can still be followed, those of late while they take no more bytes.
FOLLOWED_AFTER_END = 100
MOST_EVENT_BYTES = 32 << 20
# A comment this often shows whether whoever follows is still there (HTML standard, section 9.2.7).
PING_SECONDS = 5.0
_PING = b": ping\n\n"


class LiveResponse:
    """A response in the background: its events so far, for as many as want to follow them."""

    def __init__(self, owner: str, run: ResponseRun, call: UpstreamCall, size: int) -> None:
        """``size``: the bytes of what the model is to read."""
        self.owner, self.size = owner, size
        # Let go of at the end: it holds all that the model has read.
        self._run: ResponseRun | None = run
        self._response = run.response
        self._call = call
        self._changed = threading.Condition()
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
    def asked(self) -> InputMessages | None:
        """The messages it was asked with, and their ids; None when it has ended and they can be asked for elsewhere."""
        run = self._run
        return None if run is None else run.asked

    def announce(self) -> None:
        """Make the response's first events."""
        if self._run is not None:
            self._tell([encoded(event) for event in self._run.events.begin()])

    def generate(self) -> None:
        """Generate the response, on the thread that calls this."""
        run = self._starts()
        if run is None:
            return
        try:
            self._tell([encoded(event) for event in run.events.start()])
            for event in run.told():
                self._tell([encoded(event)])
        finally:
            self._end(run)

    def cancel(self) -> None:
        """Have the response end; one that has not begun ends at once."""
        self.stop("client", ClientClosedRequest("The response was cancelled."))

    def stop(self, reason: str, error: ApiError) -> None:
        """End the response for a reason that :class:`Call` knows."""
        self._call.cancel(reason)
        self.stop_waiting(error)

    def stop_waiting(self, error: ApiError) -> None:
        """End the response if its generation has not begun."""
        run = self._starts()
        if run is None:
            return
        try:
            self._tell([encoded(event) for event in run.fail(error)])
        finally:
            self._end(run)

    def wait(self, seconds: float) -> bool:
        """Wait until the response has ended, at most so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout=seconds)

    def follow(self, after: int = -1) -> Iterator[bytes]:
        """The events after that sequence number, as they come, to the last one."""
        sent, ended = after + 1, False
        while not ended:
            events, ended = self._since(sent)
            sent += len(events)
            yield from events or ([] if ended else [_PING])

    def _since(self, number: int) -> tuple[list[bytes], bool]:
        """The events from that number on, waited for a while, and whether they are the last ones."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or len(self._events) > number, timeout=PING_SECONDS)
            return self._events[number:], self.ended

    def _starts(self) -> ResponseRun | None:
        """The run, for whoever is the first to ask: it is theirs to bring to its end."""
        with self._changed:
            first, self._started = not self._started, True
        return self._run if first else None

    def _tell(self, events: list[bytes]) -> None:
        with self._changed:
            self._events += events
            self.event_bytes += sum(map(len, events))
            self._changed.notify_all()

    def _end(self, run: ResponseRun) -> None:
        with self._changed:
            self._response, self._run = run.response, None
            self.ended = True
            self._changed.notify_all()


class BackgroundRunner:
    """Owns the threads that generate, until :meth:`close`. They are daemons: a process ends without waiting for all."""

    def __init__(self, at_a_time: int) -> None:
        """``at_a_time``: how many responses are generated together."""
        self._lock = threading.Lock()
        self._at_a_time = at_a_time
        self._threads: list[threading.Thread] = []
        self._waiting: SimpleQueue[LiveResponse] = SimpleQueue()
        self._live: OrderedDict[str, LiveResponse] = OrderedDict()
        self._closing = False

    def require_room(self, size: int) -> None:
        """Raise Unavailable (``overloaded``) while too much waits for one of so many bytes."""
        if self._closing:
            raise _shutting_down()
        waiting = [live.size for live in self._open_ones()]
        if waiting and (len(waiting) >= MOST_WAITING or sum(waiting) + size > MOST_WAITING_BYTES):
            raise Unavailable("Too many responses wait to be generated.", code="overloaded", retry_after=30)

    def add(self, live: LiveResponse) -> None:
        """Generate a response as soon as there is a thread for it."""
        live.announce()
        with self._lock:
            self._live[live.response["id"]] = live
            self._forget_ended()
            if not self._closing:
                self._waiting.put(live)
                self._have_a_thread()
                return
        live.stop("shutdown", _shutting_down())

    def _have_a_thread(self) -> None:
        if len(self._threads) < self._at_a_time:
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

    def _open_ones(self) -> list[LiveResponse]:
        with self._lock:
            return [live for live in self._live.values() if not live.ended]

    def find(self, owner: str, response_id: str) -> LiveResponse | None:
        """An owner's response that is being generated, or has been of late."""
        live = self._live.get(response_id)
        return live if live is not None and live.owner == owner else None

    def forget(self, response_id: str) -> None:
        """A response was deleted."""
        with self._lock:
            self._live.pop(response_id, None)

    def forget_session(self, owner: str, session_id: str) -> None:
        """A conversation was deleted, or changed; what of it is still being generated stays."""
        self._forget(lambda live: (live.owner, live.response["session_id"]) == (owner, session_id))

    def forget_before(self, moment: float) -> None:
        """Forget what was made before, in Unix seconds."""
        self._forget(lambda live: live.response["created_at"] < moment)

    def _forget(self, concerned: Callable[[LiveResponse], bool]) -> None:
        with self._lock:
            for name in [name for name, live in self._live.items() if live.ended and concerned(live)]:
                del self._live[name]

    def close_queue(self) -> None:
        """Take no more responses; those whose generation has not begun end now, and are recorded as failed."""
        with self._lock:
            self._closing = True
        for live in self._open_ones():
            live.stop_waiting(_shutting_down())

    def close(self, seconds: float = 5.0) -> None:
        """End what is being generated, too."""
        self.close_queue()
        open_ones = self._open_ones()
        for live in open_ones:
            live.stop("shutdown", _shutting_down())
        deadline = time.monotonic() + seconds
        for live in open_ones:
            live.wait(max(0.0, deadline - time.monotonic()))


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down.", code="overloaded", retry_after=5)
