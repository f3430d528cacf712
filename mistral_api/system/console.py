"""What we print where the encoding of the output has not every character: a pipe, or a file, on Windows."""

from __future__ import annotations

import io
import sys


def escape_unprintable_output() -> None:
    """Have the standard output show what its encoding has not as an escape, ``\\u2192``, instead of failing at it.

    The standard error stream does so anyway.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
