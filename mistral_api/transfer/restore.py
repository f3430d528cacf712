"""A backup is restored: the database in one transaction, then the journal, by a rename.

A restore that is killed before the commit has changed nothing. One that is killed between the commit and the rename
finds, when it is run again, that the database holds the backup already, and goes on with the journal.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from mistral_api.database.revisions import all_revisions, newest_revision
from mistral_api.recording.journal_copy import exclusive_journal, has_rows, replace_journal, require_whole
from mistral_api.transfer.archive import DUMP, JOURNAL, Archive, Manifest, open_archive
from mistral_api.transfer.catalogue import StoredTable, read_tables
from mistral_api.transfer.checksums import differing_tables, read_sums
from mistral_api.transfer.copying import copy_into
from mistral_api.transfer.description import Description, count_rows
from mistral_api.transfer.dump import DumpedRows, reading_dump
from mistral_api.transfer.errors import TransferFailed, TransferRefused
from mistral_api.transfer.loading import filling, tables_with_rows
from mistral_api.transfer.progress import Progress
from mistral_api.transfer.requirements import require_no_server, require_usable
from mistral_api.transfer.session import transfer_transaction
from mistral_api.version import VERSION


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """``replace``: what is there may go. ``ignore_connections``: servers may seem to be connected."""

    replace: bool = False
    ignore_connections: bool = False


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored, whether the database had it before, and where the journal that was there is kept."""

    manifest: Manifest
    was_there: bool
    kept_journal: Path | None


def restore_backup(
    engine: Engine, journal_folder: Path, path: Path, options: RestoreOptions, progress: Progress
) -> RestoreResult:
    """Restore a backup into the database and the journal. Every byte of it is checked first.

    Raises TransferRefused, TransferFailed, StartError where a server runs, OSError, sqlite3.Error, psycopg2.Error and
    sqlalchemy.exc.SQLAlchemyError.
    """
    with exclusive_journal(journal_folder) as lock:
        progress.step("Checking the backup")
        with open_archive(path) as archive:
            _require_known_revision(archive.manifest)
            _check(engine, journal_folder, options)
            journal = _extract_journal(archive, journal_folder)
            try:
                was_there = _restore_database(engine, archive, options, progress)
                kept = replace_journal(journal_folder, journal, lock)
                _sync_folder(journal_folder)
            finally:
                if journal is not None:
                    journal.unlink(missing_ok=True)
            return RestoreResult(archive.manifest, was_there, kept)


def _require_known_revision(manifest: Manifest) -> None:
    revision = manifest["database"]["revision"]
    if revision not in all_revisions():
        raise TransferRefused(
            f"The backup was made by version {manifest['program_version']} of this program (schema {revision}), "
            f"which is newer than this one ({VERSION})."
        )


def _check(engine: Engine, journal_folder: Path, options: RestoreOptions) -> None:
    with engine.begin() as connection:
        require_usable(connection, "DATABASE_URL")
        if not options.ignore_connections:
            require_no_server(connection, "DATABASE_URL")
    if not options.replace and has_rows(journal_folder):
        raise TransferRefused(
            f"The journal in '{journal_folder}' holds records that no database has yet: start the server once, so that "
            "they are delivered, or add --replace, which keeps that journal under another name."
        )


def _extract_journal(archive: Archive, folder: Path) -> Path | None:
    """Put the journal of the backup beside that of the server, under a name of its own, and check it."""
    if archive.manifest["journal"] is None:
        return None
    path = folder / f"{JOURNAL}.restoring"
    archive.extract(JOURNAL, path)
    try:
        require_whole(path)
    except ValueError as error:
        path.unlink()
        raise TransferRefused(f"The journal in the backup cannot be used: {error}.") from error
    return path


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _restore_database(engine: Engine, archive: Archive, options: RestoreOptions, progress: Progress) -> bool:
    """Fill the database; return whether it held the backup before."""
    description = archive.manifest["database"]
    with transfer_transaction(engine) as connection:
        filled = tables_with_rows(connection)
        if filled and not options.replace:
            if _holds(connection, description, progress):
                return True
            raise TransferRefused(
                f"DATABASE_URL: the database has data already ({', '.join(filled)}): restore into an empty one, or add "
                "--replace to delete them."
            )
        with filling(connection, description, progress):
            _copy_rows(connection, archive, description, progress)
    return False


def _holds(connection: Connection, description: Description, progress: Progress) -> bool:
    if description["revision"] != newest_revision():
        return False
    return not differing_tables(description["tables"], read_sums(connection, list(description["tables"]), progress))


def _copy_rows(connection: Connection, archive: Archive, description: Description, progress: Progress) -> None:
    with (
        archive.open(DUMP) as dump,
        reading_dump(dump) as tables,
        progress.counting("Restoring rows", count_rows(description)) as advance,
    ):
        targets = read_tables(connection, list(description["tables"]))
        for rows in tables:
            if rows.table in targets:  # not Alembic's own table, which migrations have written
                _require_columns(targets[rows.table], rows)
                copy_into(connection, targets[rows.table], rows, advance)


def _require_columns(table: StoredTable, rows: DumpedRows) -> None:
    if set(rows.columns) != set(table.columns):
        raise TransferFailed(f"The table {rows.table} of the backup has other columns than its schema says.")
