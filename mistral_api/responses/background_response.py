"""A response in the background: its events so far, for any number of followers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol
from uuid import UUID

from mistral_api.errors import ApiError
from mistral_api.event_loop.waiting import Signal
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.sse import split_events

# A comment is sent this often, which shows whether a follower is still there (HTML standard, section 9.2.7).
PING_INTERVAL_SECONDS = 5.0
_PING = b": ping\n\n"


def _nothing() -> None:
    """Nobody is told."""


class LiveResponse(Protocol):
    """A response in the background that is being generated, here or in another process, or has just ended."""

    @property
    def response(self) -> Response:
        """The Response object as it is now; from another process, as it was when that was asked last."""

    @property
    def ended(self) -> bool:
        """Whether it has ended and is recorded."""

    @property
    def input(self) -> list[tuple[UUID, ChatMessage]] | None:
        """The messages of its input, and their ids; None when it has ended: the store has them then."""

    def cancel(self) -> None:
        """End the response."""

    def wait(self, seconds: float) -> bool:
        """Wait until the response has ended, for at most ``seconds``. Return whether it has."""

    def follow(self, after: int = -1) -> Iterator[bytes]:
        """Yield the events after that sequence number, as they come, to the last one."""


def followed(since: Callable[[int], tuple[list[bytes], bool]], after: int) -> Iterator[bytes]:
    """Yield the events after a sequence number, and comments while none come.

    ``since`` waits a while for the events from a number on, and returns them, and whether they are the last ones.
    """
    sent, ended = after + 1, False
    while not ended:
        events, ended = since(sent)
        sent += len(events)
        yield from events or ([] if ended else [_PING])


class BackgroundResponse:
    """A response in the background: its events so far, for any number of followers."""

    def __init__(self, owner: str, run: ResponseRun, call: UpstreamCall, size: int) -> None:
        """``size``: the bytes of the prompt."""
        self.owner, self.size = owner, size
        # Called once, at the end.
        self.on_end: Callable[[], None] = _nothing
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
        return followed(self.since, after)

    def since(self, number: int) -> tuple[list[bytes], bool]:
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
        if ended_run is not None:
            on_end, self.on_end = self.on_end, _nothing
            on_end()

    def _end(self, run: ResponseRun) -> None:
        self._add(b"", run)
