"""Numbers of bytes, for people."""

from __future__ import annotations

GIB = 1 << 30
MIB = 1 << 20


def format_size(count: int) -> str:
    """Return a number of bytes as text, such as ``4.07 GiB``; below one GiB in MiB."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
