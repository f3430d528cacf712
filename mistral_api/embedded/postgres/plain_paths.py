"""Paths that PostgreSQL's programs on Windows can use: they read them in the code page of the system.

A letter that the code page has not becomes a question mark. And initdb sends the path of its own files to a server that
takes it for UTF-8: ``FATAL: invalid byte sequence`` where the folder has an ``ü`` (PostgreSQL, src/bin/initdb/initdb.c,
``setup_schema``). The short names that Windows gives to files, ``BCHER~1``, are free of all that.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mistral_api.errors import StartError

if sys.platform == "win32":
    import pywintypes
    import win32api


def plain_program_folder(folder: Path) -> Path:
    """Return a path to the programs that is ASCII. Raises StartError where Windows has no such name for them."""
    plain = _short(folder)
    if sys.platform == "win32" and not str(plain).isascii():
        raise StartError(_sentence("The project", folder))
    return plain


def plain_data_folder(folder: Path) -> Path:
    """Return a path to the data that the programs can read. Raises StartError where Windows has no such name for it."""
    plain = _short(folder)
    if sys.platform == "win32":
        try:
            str(plain).encode("mbcs")
        except UnicodeEncodeError as error:
            raise StartError(_sentence("DATA_DIR", folder)) from error
    return plain


def _short(folder: Path) -> Path:
    """Return the short name of a folder, unless its own is plain; its own where it has no short one."""
    if sys.platform == "win32" and not str(folder).isascii():
        try:
            return Path(win32api.GetShortPathName(str(folder)))
        except pywintypes.error:
            return folder
    return folder


def _sentence(name: str, folder: Path) -> str:
    return (
        f"{name}: PostgreSQL cannot read the path '{folder}', and Windows has no short name for it: "
        "choose a folder with the letters A to Z in its path, or set DATABASE_URL."
    )
