"""Why a file cannot be downloaded, as sentences for the operator."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DownloadError(RuntimeError):
    """A file cannot be downloaded. The message is one sentence for the operator, and never holds a token."""


class DamagedFile(DownloadError):
    """The downloaded file is not what its server announced. It has been removed."""


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into DownloadError. What the disk has stored stays, and is continued later."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(f"The disk of {path} is full; make room and run the command again to go on.") from error
        raise DownloadError(f"{error.filename or path} cannot be used: {error.strerror or error}.") from error
