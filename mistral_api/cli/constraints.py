"""``mistral-api constraints``: which grammars and JSON schemas are quarantined, and how they are freed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import NoReturn

import click
from tabulate import tabulate

from mistral_api.cli.command_settings import command_settings
from mistral_api.control.quarantine import clear_quarantine, read_quarantine
from mistral_api.system.exit_codes import ExitCode


@click.group()
def constraints() -> None:
    """Show or free the grammars and JSON schemas that the model server hung with."""


@constraints.command("list")
def list_quarantined() -> None:
    """List what is refused now, by the digest that the log and the refusals name."""
    quarantined = read_quarantine(command_settings().data_dir).until
    if not quarantined:
        click.echo("Nothing is quarantined.")
        return
    rows = [[digest, f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M}"] for digest, until in quarantined.items()]
    click.echo(tabulate(rows, headers=["constraint", "refused until (UTC)"], tablefmt="plain"))


@constraints.command("clear")
@click.argument("digests", nargs=-1, metavar="[DIGEST]...")
def clear(digests: tuple[str, ...]) -> None:
    """Free all of them, or those whose digests begin with DIGEST. Running servers notice it at once."""
    data_dir = command_settings().data_dir
    quarantined = read_quarantine(data_dir).until
    chosen = [each for each in quarantined if each.startswith(digests)] if digests else None
    if digests and not chosen:
        _fail(f"None of the quarantined constraints begins with {' or '.join(digests)}.")
    try:
        freed = clear_quarantine(data_dir, chosen)
    except OSError as error:
        _fail(f"DATA_DIR: the quarantine cannot be written: {error}.")
    click.echo(f"{freed} freed.")


def _fail(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(ExitCode.CANNOT_START)
