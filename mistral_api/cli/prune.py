"""``mistral-api prune``."""

from __future__ import annotations

import click

from mistral_api.cli.database import command_engine
from mistral_api.recording.retention import prune_older_than as prune_database
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.supervisor.warm.folder import delete_unused


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
