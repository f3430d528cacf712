"""The main memory of this machine, or of the container that we run in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Where Linux shows its control groups, and which of them this process is in (cgroups(7)).
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def total_memory_bytes() -> int:
    """Return the size of main memory and swap space together; without the latter where the system does not say.

    psutil reads it on Windows from the performance counters, which may be switched off, or damaged: RuntimeError.
    """
    try:
        swap: int = psutil.swap_memory().total
    except (RuntimeError, OSError):
        swap = 0
    return int(psutil.virtual_memory().total) + swap


def available_memory_bytes(groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Return the bytes of main memory that programs may still take: of the machine, and within limits on our groups.

    ``groups``, ``own``: where Linux shows control groups, and ours.
    """
    return min([int(psutil.virtual_memory().available), *_rooms(groups, own)])


def _rooms(groups: Path, own: Path) -> Iterator[int]:
    """Yield what is left within the limit of each control group that we are in and that has one."""
    for folder in _own_groups(groups, own):
        try:
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            if limit.isdigit():
                yield max(0, int(limit) - _lasting_bytes(folder))
        except (OSError, ValueError):
            continue


def _own_groups(groups: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of our control group and of those around it (cgroups version 2; a line ``0::/path``)."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        if line.startswith("0::/"):
            path = groups / line.removeprefix("0::/")
            yield from [path, *(parent for parent in path.parents if groups in (parent, *parent.parents))]


def _lasting_bytes(folder: Path) -> int:
    """Return what a group has taken without the files that the kernel keeps in memory until somebody needs it."""
    taken = int((folder / "memory.current").read_text(encoding="ascii"))
    lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    files = sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))
    return max(0, taken - files)
