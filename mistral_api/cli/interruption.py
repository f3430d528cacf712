"""Ctrl-C during a transfer: libpq does not look at signals while it waits, so the main thread waits in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

import psycopg2
import psycopg2.extensions
from sqlalchemy import Engine, event

T = TypeVar("T")

# How often a statement that may have begun in the meantime is cancelled again; and the longest wait without a look at
# signals, which Windows delivers only between waits.
_CHECK_SECONDS = 0.5


class Interruption:
    """Runs work in a thread, and cancels its statements when the operator presses Ctrl-C."""

    def __init__(self) -> None:
        self._connections: list[psycopg2.extensions.connection] = []

    def watch(self, engine: Engine) -> None:
        """Cancel the statements of this engine's connections, too."""

        @event.listens_for(engine, "connect")
        def _remember(connection: psycopg2.extensions.connection, _record: object) -> None:
            self._connections.append(connection)

    def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns, or raise what it raises. Raises KeyboardInterrupt once it has ended."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="transfer") as executor:
            running = executor.submit(work)
            try:
                return _wait(running)
            except KeyboardInterrupt:
                self._cancel_until_done(running)
                raise

    def _cancel_until_done(self, running: Future[T]) -> None:
        """Cancel statement after statement: none may be running at one moment, and the next one soon after."""
        while not running.done():
            for connection in self._connections:
                with contextlib.suppress(psycopg2.Error):  # closed by now
                    connection.cancel()
            with contextlib.suppress(FutureTimeoutError):
                running.exception(timeout=_CHECK_SECONDS)


def _wait(running: Future[T]) -> T:
    while not running.done():
        with contextlib.suppress(FutureTimeoutError):
            running.exception(timeout=_CHECK_SECONDS)
    return running.result()
