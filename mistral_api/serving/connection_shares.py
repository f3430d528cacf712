"""How many connections each API process of a server has: whoever has more than another lets that one accept first.

All wait at one listening socket, and the system wakes all. The quickest would accept a whole burst, and a client's
connections stay for long: one process would work, and the others would wait.

The counts are in a page of memory that all processes map. Each writes its own, and a read costs no system call.
"""

from __future__ import annotations

import mmap
import os
import tempfile

# The count of a process that accepts nothing now.
_ABSENT = 0xFFFFFFFF
_BYTES_EACH = 4


class ConnectionShares:
    """The counts, as one process sees them. Its event loop writes its own; the first process may say who is absent."""

    def __init__(self, file_number: int, own: int) -> None:
        """Map the memory of an open file, which may be closed then. ``own``: this process's place, from 0."""
        size = os.fstat(file_number).st_size
        # Read and written as numbers of four bytes, which the processor does as a whole.
        self._counts = memoryview(mmap.mmap(file_number, size)).cast("I")
        self._own = own

    def note(self, count: int) -> None:
        """Write how many connections this process has."""
        self._counts[self._own] = count

    def note_absent(self, place: int | None = None) -> None:
        """Write that a process, by default this one, accepts nothing: nobody leaves connections to it."""
        self._counts[self._own if place is None else place] = _ABSENT

    @property
    def has_most(self) -> bool:
        """Whether another process that accepts has fewer connections than this one."""
        counts = self._counts
        own = counts[self._own]
        return any(count < own for count in counts)


def new_shares_file(count: int) -> int:
    """Return an open file, which nobody else finds, for so many processes, none of which accepts yet."""
    with tempfile.TemporaryFile() as file:
        file.write(_ABSENT.to_bytes(_BYTES_EACH, "little") * count)
        file.flush()
        return os.dup(file.fileno())
