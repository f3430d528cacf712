"""A folder of parts that cost minutes to fetch. A part is there as a whole, with the contents it was made with, or not.

Each part is made in a folder of another name, which is renamed at the end: an interrupted check leaves nothing that
looks complete. A manifest has the digest of each file, and a part that differs from it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

MANIFEST = "manifest.json"
LOCK_SECONDS = 300.0
# Parts of former requirements are deleted once nobody has used them for so long.
UNUSED_SECONDS = 3 * 86400.0


def cache_folder() -> Path:
    """Return the folder of the cache, by the XDG Base Directory Specification."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mistral-api-windows-check"


class Cache:
    """The parts in one folder. Those who want the same part take turns."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def part(self, name: str, recipe: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a part. ``make`` fills an empty one where there is no intact one of this recipe."""
        path = self.folder / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
        with FileLock(self.folder / f"lock-{name}", timeout=LOCK_SECONDS):
            if not is_intact(path):
                self._make(name, path, make)
            os.utime(path)
            self._delete_unused(name)
        return path

    def _make(self, name: str, path: Path, make: Callable[[Path], None]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        for left in self.folder.glob(f"making-{name}-*"):  # by a check that was killed: we have the lock
            shutil.rmtree(left, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=f"making-{name}-", dir=self.folder))
        try:
            make(new)
            (new / MANIFEST).write_text(json.dumps(dict(_digests(new))), encoding="utf-8")
            new.rename(path)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _delete_unused(self, name: str) -> None:
        for path in self.folder.glob(f"{name}-*"):
            if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def is_intact(part: Path) -> bool:
    """Whether the part has every file of its manifest, with its contents."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest == dict(_digests(part)))
    except (OSError, ValueError):
        return False


def _digests(part: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(part.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                yield str(path.relative_to(part)), hashlib.file_digest(file, "sha256").hexdigest()
