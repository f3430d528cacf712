"""``mistral-api export`` and ``mistral-api prune``, and the database for every command that needs one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.application import create_app, require_database
from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.errors import CannotGoOn
from mistral_api.control.saved_caches import delete_unused
from mistral_api.conversations.export import (
    ConversationSelection,
    archive_line,
    count_conversations,
    fine_tuning_line,
    read_conversations,
)
from mistral_api.database.errors import unusable_sentence
from mistral_api.delivery.housekeeping import prune_older_than
from mistral_api.errors import StartError
from mistral_api.services import Services, services_of


@contextlib.contextmanager
def command_engine() -> Iterator[Engine]:
    """Give connections to the database of the settings, as :func:`command_services` does."""
    with command_services() as services:
        yield services.engine


@contextlib.contextmanager
def command_services() -> Iterator[Services]:
    """Give services that are not started, on the settings; an embedded PostgreSQL is started if it does not run.

    Nothing is made where there is no database yet. A database that cannot be used becomes one sentence and exit code 2,
    one that fails later exit code 1.
    """
    try:
        app = create_app(command_settings(), create=False)
    except StartError as error:
        raise CannotGoOn(str(error)) from error
    try:
        require_database(app)
        yield services_of(app.extensions)
    except StartError as error:
        raise CannotGoOn(str(error)) from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"DATABASE_URL: {unusable_sentence(error)}") from error
    finally:
        services_of(app.extensions).close()


_LINES = {"jsonl": archive_line, "openai-finetune": fine_tuning_line}


def _parse_time(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """Read a date, a date with a time, or Unix seconds; without a zone it is UTC."""
    if text is None:
        return None
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as error:
        sentence = f"'{text}' is no date such as 2026-11-30 or 2026-11-30T12:00, and no Unix seconds."
        raise click.BadParameter(sentence) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@click.command()
@click.option("--since", callback=_parse_time, metavar="MOMENT", help="Only conversations used since then.")
@click.option("--session", "session_id", help="Only the conversations of this session.")
@click.option("--owner", help="Only the conversations of this owner.  [default: of all]")
@click.option(
    "--format",
    "line_format",
    type=click.Choice(list(_LINES)),
    default="jsonl",
    show_default=True,
    help="Everything, or the current branches as OpenAI takes them for fine-tuning.",
)
@click.option("--output", type=click.File("wb", lazy=False), default="-", help="A file instead of the standard output.")
def export(
    since: datetime | None, session_id: str | None, owner: str | None, line_format: str, output: BinaryIO
) -> None:
    """Write conversations out, one line of JSON each."""
    selection, line_of = ConversationSelection(since, session_id, owner), _LINES[line_format]
    with command_engine() as engine:
        total, written = count_conversations(engine, selection), 0
        with click.progressbar(length=total, label="Exporting", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for conversation, messages in read_conversations(engine, selection):
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
    kept_days = days or _retention_days()
    with command_engine() as engine:
        click.echo(f"Older than {kept_days} days: {prune_older_than(engine, kept_days)}.")
    try:
        delete_unused(command_settings().data_dir, kept_days)
    except OSError as error:
        raise click.ClickException(f"DATA_DIR: saved caches cannot be deleted: {error.strerror}.") from error


def _retention_days() -> int:
    days = command_settings().retention_days
    if not days:
        raise click.UsageError("RETENTION_DAYS is 0, everything is kept for ever: give --days.")
    return days
