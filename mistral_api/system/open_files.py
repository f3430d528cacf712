"""How many files and sockets this process may have open."""

from __future__ import annotations

import sys


def allow_open_files(wanted: int) -> int | None:
    """Raise the limit of this process to ``wanted`` files, as far as the system lets it.

    Return the limit now, or None where there is none. Many systems start processes with 1024 and allow far more.
    """
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
