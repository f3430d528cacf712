"""The database for a command; export, prune.

The database for a command: that of the settings, an embedded one started if it does not run.

``mistral-api export``.

``mistral-api prune``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import click
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from mistral_api import create_app
from mistral_api.control.saved_caches import delete_unused
from mistral_api.conversations.export import Selection, conversations, count_conversations, fine_tuning_line, whole_line
from mistral_api.database.errors import first_line_of
from mistral_api.delivery.housekeeping import prune_older_than as prune_database
from mistral_api.errors import StartError
from mistral_api.services import services_of
from mistral_api.settings import SettingError, Settings, load_settings


@contextlib.contextmanager
def command_engine() -> Iterator[Engine]:
    """Connections to the database; what goes wrong with it becomes one sentence and exit code 1."""
    try:
        app = create_app()
    except (SettingError, StartError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield services_of(app.extensions).engine
    except SQLAlchemyError as error:
        raise click.ClickException(_sentence(error)) from error
    finally:
        services_of(app.extensions).close()


def _sentence(error: SQLAlchemyError) -> str:
    first = first_line_of(error)
    if isinstance(error, ProgrammingError):
        return f"The database's schema is not that of this version ({first}); run 'flask db upgrade'."
    return f"The database cannot be used: {first}."


_LINES = {"jsonl": whole_line, "openai-finetune": fine_tuning_line}


def _moment(_context: click.Context, _option: click.Parameter, given: str | None) -> datetime | None:
    """A date, a date with a time, or Unix seconds; without a zone it is UTC."""
    if given is None:
        return None
    try:
        if given.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(given), UTC)
        moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError, OSError) as error:
        text = f"'{given}' is no date such as 2026-11-30 or 2026-11-30T12:00, and no Unix seconds."
        raise click.BadParameter(text) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--since",
    callback=_moment,
    metavar="MOMENT",
    help="Only conversations used since then.",
)
@click.option("--session", "session_id", help="Only the conversation of this session.")
@click.option(
    "--format",
    "line_format",
    type=click.Choice(list(_LINES)),
    default="jsonl",
    show_default=True,
    help="Everything, or the current branches as OpenAI takes them for fine-tuning.",
)
@click.option("--output", type=click.File("wb", lazy=False), default="-", help="A file instead of the standard output.")
def export(since: datetime | None, session_id: str | None, line_format: str, output: BinaryIO) -> None:
    """Write conversations out, one line of JSON each."""
    selection, line_of = Selection(since, session_id), _LINES[line_format]
    with command_engine() as engine:
        total, written = count_conversations(engine, selection), 0
        with click.progressbar(length=total, label="Exporting", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for conversation, messages in conversations(engine, selection):
                line = line_of(conversation, messages)
                if line is not None:
                    output.write(line)
                    written += 1
                bar.update(1)
    click.echo(f"{written} of {total} conversations exported.", err=True)


@click.command()
@click.option("--days", type=click.IntRange(1, 36500), help="Keep so many days.  [default: RETENTION_DAYS]")
def prune(days: int | None) -> None:
    """Delete conversations and usage rows that are older than RETENTION_DAYS.

    The statistics keep counting what is deleted. A running server does this by itself every hour.
    """
    kept = days or _retention_days()
    with command_engine() as engine:
        click.echo(f"Older than {kept} days: {prune_database(engine, kept)}.")
    try:
        delete_unused(_settings().data_dir, kept)
    except OSError as error:
        raise click.ClickException(f"DATA_DIR: saved caches cannot be deleted: {error.strerror}.") from error


def _retention_days() -> int:
    days = _settings().retention_days
    if not days:
        raise click.UsageError("RETENTION_DAYS is 0, everything is kept for ever: give --days.")
    return days


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from error
