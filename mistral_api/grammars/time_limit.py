"""How long the translation of one constraint may take: clients write them, and a request's thread translates them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from mistral_api.grammars.errors import TooSlow, Untranslatable

MOST_SECONDS = 2.0
_deadline: ContextVar[float | None] = ContextVar("deadline of a translation", default=None)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@contextmanager
def time_limit(seconds: float = MOST_SECONDS) -> Iterator[None]:
    """Let everything that is translated within take so many seconds of this thread together.

    A limit within another one changes nothing.
    """
    if _deadline.get() is not None:
        yield
        return
    token = _deadline.set(time.thread_time() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise TooSlow, which is Untranslatable, when the time that was set by :func:`time_limit` is over."""
    deadline = _deadline.get()
    if deadline is not None and time.thread_time() >= deadline:
        raise TooSlow


def bounded(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return a function that translates something with a limit to its time and to its depth."""

    @functools.wraps(function)
    def limited(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with time_limit():
            try:
                return function(*args, **kwargs)
            except RecursionError as error:
                raise Untranslatable("it is nested too deeply") from error

    return limited
