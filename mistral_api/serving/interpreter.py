"""How Python is set in a process that serves: whose turn is how long, and how often garbage is searched for."""

from __future__ import annotations

import gc
import sys

# How long one thread may keep the others from running Python code: what runs beside responses must not delay them.
SWITCH_SECONDS = 0.0005
# After so many more objects the youngest are searched through, after ten times as many those that were left, and so on.
# Little is in circles here; with Python's 700 the search was a quarter of a request's cost while 2,000 clients waited.
COLLECTION_THRESHOLDS = 5000, 10, 10


def set_for_serving() -> None:
    """Set the interpreter for this process, once what it needs has been imported; what that made is kept for good.

    Garbage is collected from now on.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    keep_for_good()
    gc.enable()


def keep_for_good() -> None:
    """Have no search for garbage look again at what there is: one through it all took up to 0.1 s."""
    gc.freeze()
