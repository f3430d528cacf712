"""Which program this is: the API processes of one server must all be the same one, or they misunderstand each other."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mistral_api.version import VERSION

PACKAGE_FOLDER = Path(__file__).parent.parent


def program_version(folder: Path = PACKAGE_FOLDER) -> str:
    """Return the version and a digest of the source: an upgrade of a checkout need not change the version.

    To be called soon after the start, while the files are those that were imported. Reads some 3 MB.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return f"{VERSION}+{digest.hexdigest()[:16]}"
