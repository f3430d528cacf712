"""The file of a backup: a ZIP with the dump, the journal, and what both must contain (``manifest.json``).

It is written under another name and renamed when it is whole and on the disk. Only its owner can read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypedDict, cast

import orjson
import psutil

from mistral_api.recording.journal_copy import JournalCounts
from mistral_api.system.files import move_file, open_private, remove_file
from mistral_api.transfer.description import Description
from mistral_api.transfer.errors import TransferRefused

FORMAT = 1
MANIFEST, DUMP, JOURNAL = "manifest.json", "database.dump", "journal.sqlite3"
_CHUNK_BYTES = 1 << 20


class Manifest(TypedDict):
    """What a backup contains. ``sha256`` has the hash of every other file in it; ``journal`` is null without one."""

    format: int
    program_version: str
    postgres_version: int
    created_at: str
    database: Description
    journal: JournalCounts | None
    sha256: dict[str, str]


class ArchiveWriter:
    """A backup that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.sha256: dict[str, str] = {}

    @contextlib.contextmanager
    def adding(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Give the function that writes a file into the backup, piece by piece. The dump is compressed already."""
        information = zipfile.ZipInfo(name, time.localtime()[:6])
        information.compress_type = zipfile.ZIP_STORED if name == DUMP else zipfile.ZIP_DEFLATED
        information.external_attr = 0o600 << 16
        digest = hashlib.sha256()
        with self._archive.open(information, "w", force_zip64=True) as file:

            def write(chunk: bytes) -> None:
                digest.update(chunk)
                file.write(chunk)

            yield write
        self.sha256[name] = digest.hexdigest()

    def add_file(self, name: str, path: Path) -> None:
        """Put a file into the backup."""
        with self.adding(name) as write, path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                write(chunk)

    def add_manifest(self, manifest: Manifest) -> None:
        """Put in what the backup contains, last."""
        self._archive.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


@contextlib.contextmanager
def writing_archive(path: Path) -> Iterator[ArchiveWriter]:
    """Write a backup; the file is there after the block, whole, or as it was before.

    Raises OSError, and TransferRefused for what is no file.
    """
    _refuse_device(path)
    _remove_leftovers(path)
    new = unfinished_path(path, "zip")
    try:
        with open(new, "wb", opener=open_private) as file:
            with zipfile.ZipFile(file, "w") as archive:
                yield ArchiveWriter(archive)
            file.flush()
            os.fsync(file.fileno())
        move_file(new, path)
    except BaseException:
        remove_file(new)
        raise


def _refuse_device(path: Path) -> None:
    """Refuse a device or a pipe: a new backup would take its place, and to open one may last for ever."""
    if path.exists() and not path.is_file():
        raise TransferRefused(f"'{path}' is no regular file.")


def unfinished_path(path: Path, kind: str) -> Path:
    """Return the path of a file beside the backup that belongs to this process until it is finished."""
    return path.with_name(f"{path.name}.{os.getpid()}.{kind}.new")


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left beside the backup."""
    for left in path.parent.glob(f"{_escaped(path.name)}.*.new"):
        number = left.name.removeprefix(f"{path.name}.").split(".")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            left.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


class Archive:
    """A backup that is read. Made by :func:`open_archive`, which has checked every byte of it."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the backup. Raises OSError, zipfile.BadZipFile."""
        return self._archive.open(name)

    def extract(self, name: str, target: Path) -> None:
        """Copy a file of the backup to a new file that only its owner can read. Raises OSError."""
        with self.open(name) as source, open(target, "wb", opener=open_private) as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())


# What zipfile raises for a damaged file, besides its own BadZipFile.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a backup and check all of it. Raises TransferRefused, which says what is wrong, and OSError."""
    _refuse_device(path)
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(zipfile.ZipFile(path))
            archive = Archive(file, _checked_manifest(path, file))
        except FileNotFoundError as error:
            raise TransferRefused(f"'{path}' does not exist.") from error
        except _DAMAGE as error:
            raise TransferRefused(f"'{path}' is no whole backup: {error}.") from error
        yield archive


def _checked_manifest(path: Path, file: zipfile.ZipFile) -> Manifest:
    try:
        manifest = cast(Manifest, orjson.loads(file.read(MANIFEST)))
        version = manifest["format"]
        if version != FORMAT:
            raise TransferRefused(
                f"'{path}' is a backup in the format {version}, and this version knows {FORMAT} only."
            )
        hashes = _expected_hashes(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise TransferRefused(f"'{path}' is no backup of this program.") from error
    for name, expected in hashes.items():
        if name not in file.namelist() or _sha256(file, name) != expected:
            raise TransferRefused(f"'{path}' is damaged: {name} in it is not what was written.")
    return manifest


def _expected_hashes(manifest: Manifest) -> dict[str, str]:
    """Return the hash of each file that a restore reads.

    Raises KeyError and TypeError where the manifest does not have them, or does not say what the database held.
    """
    names = [DUMP] if manifest["journal"] is None else [DUMP, JOURNAL]
    if "revision" not in manifest["database"]:
        raise KeyError("revision")
    return {name: manifest["sha256"][name] for name in names}


def _sha256(file: zipfile.ZipFile, name: str) -> str:
    with file.open(name) as member:
        return hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type] # it needs only readinto
