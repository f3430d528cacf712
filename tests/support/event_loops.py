"""An event loop on a thread of its own, for tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from mistral_api.event_loop.loop import EventLoop

T = TypeVar("T")

SECONDS = 10.0


@contextlib.contextmanager
def running_loop() -> Iterator[EventLoop]:
    """Run an event loop until the end of the block."""
    loop = EventLoop()
    thread = threading.Thread(target=loop.run, name="event-loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.stop()
        thread.join(timeout=SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def hanging(loop: EventLoop) -> Iterator[None]:
    """Have a running loop do nothing within the block."""
    hangs, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        go_on.wait(SECONDS)

    loop.call_soon(hang)
    assert hangs.wait(SECONDS)
    try:
        yield
    finally:
        go_on.set()


def run_as_task(loop: EventLoop, function: Callable[[], T]) -> T:
    """Return what a function returns as a task of a loop; raise what it raises."""
    done = threading.Event()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            done.set()

    loop.spawn(run)
    assert done.wait(SECONDS), "the task does not end"
    if errors:
        raise errors[0]
    return results[0]
