"""``mistral-api database move``, ``backup`` and ``restore``: the whole database, carried."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace as with_changes
from pathlib import Path

import click
import psycopg2
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from tabulate import tabulate

from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.errors import CannotGoOn
from mistral_api.cli.interruption import Interruption
from mistral_api.database.deadlines import blocking_waits
from mistral_api.database.engine import create_transfer_engine, open_database, require_database_data
from mistral_api.database.errors import error_message, is_permission_error
from mistral_api.database_url import BadDatabaseUrl
from mistral_api.errors import StartError
from mistral_api.recording.journal_copy import exclusive_journal
from mistral_api.setting_kinds import DATABASE_URL, SCHEMA_NAME, Kind
from mistral_api.settings import Settings
from mistral_api.transfer.backup import write_backup
from mistral_api.transfer.checksums import TableSum
from mistral_api.transfer.errors import TransferFailed, TransferRefused
from mistral_api.transfer.move import MoveOptions, move_database
from mistral_api.transfer.restore import RestoreOptions, restore_backup

EMBEDDED = "embedded"

# Resolved, so that a backup replaces what a link leads to, and an empty name is that of a directory.
_FILE = click.Path(dir_okay=False, resolve_path=True, path_type=Path)
_replace = click.option("--replace", is_flag=True, help="Delete what the target holds; all of it or nothing.")
_ignore_connections = click.option(
    "--ignore-connections", is_flag=True, help="Go on although a server seems to be connected to the database."
)


class TransferDisplay:
    """Shows a transfer on the standard error stream: lines, and on a terminal bars."""

    def step(self, sentence: str) -> None:
        """Print what begins now."""
        click.echo(f"{sentence} ...", err=True)

    @contextlib.contextmanager
    def counting(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show the progress of one step; the function that this gives takes how many more are done."""
        if not sys.stderr.isatty():
            click.echo(f"{label}: {total:,}", err=True)
            yield lambda _count: None
            return
        with click.progressbar(
            length=total, label=label, file=sys.stderr, update_min_steps=max(1, total // 1000), show_pos=True
        ) as bar:
            yield bar.update


@click.group()
def database() -> None:
    """Carry the whole database elsewhere."""


@database.command()
@click.option(
    "--to",
    "target_text",
    required=True,
    metavar="URL|embedded",
    help="The other PostgreSQL, or the embedded one. The password may come from PGPASSWORD or ~/.pgpass.",
)
@click.option("--schema", "schema_text", metavar="NAME", help="Its schema for our tables.  [default: DATABASE_SCHEMA]")
@_replace
@_ignore_connections
def move(target_text: str, schema_text: str | None, replace: bool, ignore_connections: bool) -> None:
    """Carry everything to another PostgreSQL, compare both, and say what to put into .env.

    The database in use stays as it is. Stop the server first; what waits in its journal stays there, and goes to the
    new database when the server is started with it. A move that was interrupted has changed nothing: run it again.
    """
    settings = command_settings()
    _require_data(settings)
    target_settings = _target_settings(settings, target_text, schema_text)
    options = MoveOptions(replace, ignore_connections)
    interruption = Interruption()
    with (
        _explained("The move failed, and the target is as it was"),
        exclusive_journal(_journal(settings)),
        _engine(settings, interruption) as source,
        _engine(target_settings, interruption, create=True) as target,
    ):
        result = interruption.run(lambda: move_database(source, target, options, TransferDisplay()))
    click.echo(_table_of(result.tables))
    click.echo("The target holds the same already.\n" if result.was_there else "Moved: both hold the same.\n")
    click.echo(_env_lines(settings, target_settings))


def _target_settings(settings: Settings, target: str, schema: str | None) -> Settings:
    url = None if target.lower() == EMBEDDED else _read(DATABASE_URL, "--to", target, secret=True)
    if schema is not None:
        return with_changes(settings, database_url=url, database_schema=_read(SCHEMA_NAME, "--schema", schema))
    return with_changes(settings, database_url=url)


def _read(kind: Kind[str], option: str, text: str, *, secret: bool = False) -> str:
    try:
        return kind.read(text)
    except BadDatabaseUrl as error:
        raise CannotGoOn(f"{option}: {error}.") from None
    except ValueError as error:
        value = "its value" if secret else f"'{text}'"
        more = f", or {EMBEDDED}" if secret else ""
        raise CannotGoOn(f"{option}: {value} is not allowed; give {kind.allowed}{more}.") from error


def _env_lines(old: Settings, new: Settings) -> str:
    """Say what must change in ``.env``; a password is shown as ``***``."""
    lines = []
    if new.database_url is None:
        lines += [] if old.database_url is None else ["# remove the line DATABASE_URL=..."]
    else:
        url = make_url(new.database_url).set(drivername="postgresql")
        lines.append(f"DATABASE_URL={url.render_as_string(hide_password=True)}")
    if new.database_schema != old.database_schema:
        lines.append(f"DATABASE_SCHEMA={new.database_schema or ''}")
    if "***" in "".join(lines):
        lines.append("# with the password in the place of ***")
    return "Put into .env, then start the server:\n\n" + "\n".join(lines)


@click.command()
@click.argument("file", type=_FILE)
def backup(file: Path) -> None:
    """Write the whole database, and what waits in the journal, into FILE. The server may run meanwhile.

    FILE is replaced when the new backup is whole. It holds everything that was said: only its owner can read it.
    """
    settings = command_settings()
    interruption = Interruption()
    with _explained("No backup was written"), _engine(settings, interruption) as engine:
        manifest = interruption.run(lambda: write_backup(engine, _journal(settings), file, TransferDisplay()))
    click.echo(_table_of(manifest["database"]["tables"]))
    waiting = manifest["journal"]
    if waiting is not None and any(waiting.values()):
        click.echo("From the journal: " + ", ".join(f"{count} {name}" for name, count in waiting.items()) + ".")
    click.echo(f"{file}: {file.stat().st_size:,} bytes.")


@click.command()
@click.argument("file", type=_FILE)
@_replace
@_ignore_connections
def restore(file: Path, replace: bool, ignore_connections: bool) -> None:
    """Restore a backup into the database of the settings and into the journal.

    FILE is checked first, and the database afterwards, before anything becomes valid. Stop the server first. What the
    backup took from the journal is delivered when the server is started.
    """
    settings = command_settings()
    options = RestoreOptions(replace, ignore_connections)
    interruption = Interruption()
    with _explained("Nothing was restored"), _engine(settings, interruption, create=True) as engine:
        result = interruption.run(lambda: restore_backup(engine, _journal(settings), file, options, TransferDisplay()))
    click.echo(_table_of(result.manifest["database"]["tables"]))
    if result.kept_journal is not None:
        click.echo(f"The journal that was there is kept as {result.kept_journal}.")
    click.echo("The database held this backup already." if result.was_there else f"Restored from {file}.")


def _require_data(settings: Settings) -> None:
    """Refuse a source that is not there yet, before anything is made for the move."""
    try:
        require_database_data(settings)
    except StartError as error:
        raise CannotGoOn(str(error)) from error


def _journal(settings: Settings) -> Path:
    return settings.data_dir / "journal"


@contextlib.contextmanager
def _engine(settings: Settings, interruption: Interruption, *, create: bool = False) -> Iterator[Engine]:
    """Give connections for a transfer; an embedded PostgreSQL is started if it does not run.

    ``create``: the transfer fills this database, so an embedded one is made where there is none.
    """
    opened = open_database(settings, create=create)
    engine = create_transfer_engine(opened.url, settings.database_schema)
    interruption.watch(engine)
    try:
        with blocking_waits():
            yield engine
    finally:
        engine.dispose()
        opened.release()


@contextlib.contextmanager
def _explained(what_failed: str) -> Iterator[None]:
    """Turn what keeps a transfer from going on into one sentence: exit code 2, or 1 where it had begun."""
    try:
        yield
    except (TransferRefused, StartError) as error:
        raise CannotGoOn(str(error)) from error
    except TransferFailed as error:
        raise click.ClickException(f"{what_failed}: {error}") from error
    except (SQLAlchemyError, psycopg2.Error) as error:
        sentence = f"{what_failed}: {error_message(error)}."
        raise (CannotGoOn if is_permission_error(error) else click.ClickException)(sentence) from error
    except (OSError, sqlite3.Error, zipfile.BadZipFile) as error:
        raise click.ClickException(f"{what_failed}: {error}.") from error
    except KeyboardInterrupt:
        raise click.ClickException(f"{what_failed}: interrupted.") from None


def _table_of(sums: dict[str, TableSum]) -> str:
    rows = [(name, table["rows"], table["checksum"][:16]) for name, table in sums.items()]
    return tabulate(rows, ("table", "rows", "checksum"), tablefmt="simple", intfmt=",", disable_numparse=[2])
