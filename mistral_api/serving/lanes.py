"""Threads that answer requests, in lanes: no number of streams, and no slow database, holds up ``/health``, and nothing
that asks the model server holds up who reads what is recorded.

A request waits for a thread of its lane in the order of arrival. A lane in which too many wait already refuses.
"""

from __future__ import annotations

import time
from typing import Any

from mistral_api.event_loop.loop import EventLoop
from mistral_api.serving.lane import Lane
from mistral_api.serving.refusals import overloaded

_KEYS = "/v1/keys"
# What does not ask the model server: pages, and what is recorded. It never waits behind what does.
_READS = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))
_RECORDS = "/v1/conversations"
# What these read is the model server's.
_OF_MODEL_SERVER = ("/props", "/slots", "/lora-adapters")
READ_THREADS = 16
_RESERVED_WAITING = 64
# More than there can be connections.
_ALL_WAITING = 100_000
# The paths with lanes of their own, each with its threads, and how many requests may wait for them. Liveness is told to
# all that ask, since it costs as little as a refusal: where strangers ask for it in a flood, an orchestrator must not
# take a 503 for a dead process, and restart it.
_RESERVED: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("liveness", 1, _ALL_WAITING, ("/health/live",)),
    ("health", 2, _RESERVED_WAITING, ("/health", "/health/ready")),
    # A scrape waits for the model server's own figures.
    ("metrics", 1, _RESERVED_WAITING, ("/metrics",)),
    ("keys", 2, _RESERVED_WAITING, (_KEYS,)),
)
STOP_SECONDS = 5.0


class Lanes:
    """All lanes; the server gives each channel with a request to :meth:`add_task`, as to waitress's dispatcher."""

    def __init__(self, threads: int, most_waiting: int, loop: EventLoop) -> None:
        """``loop``: the event loop of the web server, where lanes look after requests that wait."""
        self._main = Lane("task", threads, most_waiting, loop)
        self._reads = Lane("read", READ_THREADS, most_waiting, loop)
        self._refusals = Lane("refusal", 1, _ALL_WAITING, loop)
        reserved = [(Lane(name, count, waiting, loop), paths) for name, count, waiting, paths in _RESERVED]
        self._by_path = {path: lane for lane, paths in reserved for path in paths}
        self._all = [self._main, self._reads, self._refusals, *(lane for lane, _ in reserved)]

    def add_task(self, channel: Any) -> None:
        """Have the first request of a channel answered."""
        request = channel.requests[0]
        request.queued_at = time.monotonic()
        lane = self._lane_of(request.path, request.command)
        if not request.error and lane in (self._main, self._reads) and channel.client.refusal is not None:
            request.refuse(channel.client.refusal)
        elif not request.error and lane.full:
            request.refuse(overloaded())
        (self._refusals if request.error else lane).add_task(channel)

    def add_aside(self, task: Any) -> None:
        """Have a task done that is no request and may take a while, on the thread of the refusals."""
        self._refusals.add_task(task)

    def _lane_of(self, path: str, method: str) -> Lane:
        if path.startswith(_KEYS + "/"):
            path = _KEYS
        lane = self._by_path.get(path)
        if lane is not None:
            return lane
        asks_records = method in _READS and path not in _OF_MODEL_SERVER
        return self._reads if asks_records or path.startswith(_RECORDS) else self._main

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return sum(lane.waiting for lane in self._all if lane is not self._refusals)

    def shutdown(self) -> None:
        """Let every thread end, within STOP_SECONDS, and cancel what still waits."""
        for lane in self._all:
            lane.close()
        deadline = time.monotonic() + STOP_SECONDS
        for lane in self._all:
            lane.cancel_waiting(max(0.1, deadline - time.monotonic()))
