"""A disk whose power fails: an ext4 file system in a file, cut off from it while a process writes.

``EXT4_IOC_SHUTDOWN`` without a flush (linux/fs/ext4/ioctl.c) stops every write at once, as a power failure does: what
the kernel had not written to the file by then is lost. Mounted again, ext4 shows what a machine finds when it starts
again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "linux":
    import fcntl

# _IOR('X', 125, __u32), and the flag that also leaves ext4's own journal unwritten.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)
_TOOLS = ("mkfs.ext4", "mount", "umount")
_SIZE = 64 << 20
_TIMEOUT_SECONDS = 30


class FailingDisk:
    """A mounted file system, at ``folder``."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image, self.folder = image, folder
        self._mounted = False

    def make(self) -> str | None:
        """Make and mount it. Return why this machine cannot, or None."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "only root on Linux can mount a disk"
        if not all(shutil.which(tool) for tool in _TOOLS):
            return f"needs {', '.join(_TOOLS)}"
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        self.folder.mkdir()
        _run("mkfs.ext4", "-q", str(self._image))
        try:
            self.mount()
        except subprocess.CalledProcessError as error:
            return f"no loop device can be mounted here: {error.stderr.decode().strip()}"
        return None

    def mount(self) -> None:
        """Mount it, which also recovers what ext4 can recover."""
        _run("mount", "-o", "loop", str(self._image), str(self.folder))
        self._mounted = True

    def unmount(self) -> None:
        """Unmount it."""
        if self._mounted:
            _run("umount", str(self.folder))
            self._mounted = False

    def fail(self) -> None:
        """Lose whatever is not on the disk. From now on every write fails."""
        if sys.platform == "linux":
            number = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.ioctl(number, _SHUTDOWN, _NO_LOG_FLUSH)
            finally:
                os.close(number)


@contextlib.contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk | str]:
    """Yield a disk that can fail, or why there can be none on this machine."""
    disk = FailingDisk(folder / "disk.img", folder / "disk")
    reason = disk.make()
    try:
        yield disk if reason is None else reason
    finally:
        disk.unmount()


def _run(*command: str) -> None:
    path = shutil.which(command[0]) or command[0]
    subprocess.run([path, *command[1:]], check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
