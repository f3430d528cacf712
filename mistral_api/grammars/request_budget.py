"""How much processor time the constraints of one request may take to translate, all together.

Each of them is bounded by itself (``time_limit``), but a request may bring a hundred.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

# Those of real clients take some milliseconds.
MOST_SECONDS = 4.0


@dataclass(slots=True)
class _Spent:
    seconds: float = 0.0


_spent: ContextVar[_Spent | None] = ContextVar("spent on the constraints of a request", default=None)


@contextmanager
def request_budget() -> Iterator[None]:
    """Let all that is :func:`charged` within take MOST_SECONDS together. Within another budget it changes nothing."""
    if _spent.get() is not None:
        yield
        return
    token = _spent.set(_Spent())
    try:
        yield
    finally:
        _spent.reset(token)


@contextmanager
def charged() -> Iterator[None]:
    """Charge the processor time of this thread to the budget of its request."""
    spent, started = _spent.get(), time.thread_time()
    try:
        yield
    finally:
        if spent is not None:
            spent.seconds += time.thread_time() - started


def seconds_left() -> float:
    """Return what is left of the budget, 0 where it is spent; all of it where there is no request."""
    spent = _spent.get()
    return MOST_SECONDS if spent is None else max(0.0, MOST_SECONDS - spent.seconds)
