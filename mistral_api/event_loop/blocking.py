"""A thread that serves requests tells its owner when it blocks, so that another one may go on in its place.

Whoever waits for something slow does so within :func:`blocking`. On a thread that nobody has registered, and in the
event loop, that does nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

# By the threads' identifiers: what is called with True when a thread begins to block, and with False at the end.
_owners: dict[int, Callable[[bool], None]] = {}


@contextlib.contextmanager
def told_of_blocking(owner: Callable[[bool], None]) -> Iterator[None]:
    """Have an owner told whenever the calling thread begins to block (True) and goes on (False) in the block.

    It is called on that thread, and must not wait.
    """
    thread = threading.get_ident()
    _owners[thread] = owner
    try:
        yield
    finally:
        del _owners[thread]


@contextlib.contextmanager
def blocking() -> Iterator[None]:
    """Tell the owner of the calling thread, if it has one, that it blocks within."""
    thread = threading.get_ident()
    owner = _owners.pop(thread, None)
    if owner is None:  # nobody wants to know, or it is known already
        yield
        return
    owner(True)
    try:
        yield
    finally:
        owner(False)
        _owners[thread] = owner
