"""``mistral-api export``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import BinaryIO

import click

from mistral_api.cli.database import command_engine
from mistral_api.conversations.exporting import (
    Selection,
    conversations,
    count_conversations,
    fine_tuning_line,
    whole_line,
)

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
