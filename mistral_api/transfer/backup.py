"""A backup: one file with all that PostgreSQL and the journal hold, made while the server may run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from mistral_api.recording.journal_copy import JournalCounts, copy_journal
from mistral_api.transfer.archive import (
    DUMP,
    FORMAT,
    JOURNAL,
    ArchiveWriter,
    Manifest,
    unfinished_path,
    writing_archive,
)
from mistral_api.transfer.description import describe
from mistral_api.transfer.dump import require_supported_version, write_dump
from mistral_api.transfer.progress import Progress
from mistral_api.transfer.requirements import postgres_version, require_newest_revision, require_usable
from mistral_api.transfer.session import transfer_transaction
from mistral_api.version import VERSION


def write_backup(engine: Engine, journal_folder: Path, path: Path, progress: Progress) -> Manifest:
    """Write a backup and return what it contains.

    The journal is copied before PostgreSQL's snapshot is taken: an exchange that is delivered in between is in both,
    and is delivered once after a restore, since its id is known. Raises TransferRefused, TransferFailed, OSError,
    sqlite3.Error and sqlalchemy.exc.SQLAlchemyError.
    """
    with engine.begin() as connection:
        require_usable(connection, "DATABASE_URL")
        require_newest_revision(connection, "DATABASE_URL")
        require_supported_version(connection)
    with writing_archive(path) as archive:
        progress.step("Copying the journal")
        journal = _add_journal(archive, journal_folder, path)
        manifest = _add_database(archive, engine, journal, progress)
        archive.add_manifest(manifest)
    return manifest


def _add_journal(archive: ArchiveWriter, folder: Path, path: Path) -> JournalCounts | None:
    copy = unfinished_path(path, "journal")
    try:
        copy.touch(mode=0o600)
        counts = copy_journal(folder, copy)
        if counts is not None:
            archive.add_file(JOURNAL, copy)
    finally:
        copy.unlink(missing_ok=True)
    return counts


def _add_database(
    archive: ArchiveWriter, engine: Engine, journal: JournalCounts | None, progress: Progress
) -> Manifest:
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    with transfer_transaction(repeatable) as connection:
        database = describe(connection, progress)
        progress.step("Dumping the tables")
        with archive.adding(DUMP) as write:
            write_dump(connection, engine, write)
        version = postgres_version(connection)
    return {
        "format": FORMAT,
        "program_version": VERSION,
        "postgres_version": version,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": database,
        "journal": journal,
        "sha256": archive.sha256,
    }
