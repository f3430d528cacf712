"""Why a set-up cannot go on."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

# A disk with less space than this is what made a step fail, whatever that said.
LEAST_FREE_BYTES = 16 << 20


class SetupError(Exception):
    """The set-up cannot go on; the message is one sentence for the operator."""


def is_disk_full(place: Path) -> bool:
    """Whether the disk of a folder, or that of temporary files, has no space left."""
    return any(shutil.disk_usage(folder).free < LEAST_FREE_BYTES for folder in (place, tempfile.gettempdir()))


def disk_full(place: object) -> SetupError:
    """Return the error of a disk without space."""
    return SetupError(
        f"There is no space left on the disk of '{place}' or of the temporary folder: the set-up needs about 1 GB."
    )


def from_os_error(error: OSError, place: object) -> SetupError:
    """Return the sentence for a file that cannot be made, changed or removed."""
    if error.errno == errno.ENOSPC:
        return disk_full(place)
    return SetupError(f"The Python environment '{place}' cannot be made: {error.strerror or error}.")
