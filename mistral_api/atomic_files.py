"""Small files that are replaced as a whole: a reader sees the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read, making its folder if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    writing = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(writing, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    os.replace(writing, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
