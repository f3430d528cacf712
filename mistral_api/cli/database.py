"""The database for a command: that of the settings, an embedded one started if it does not run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from mistral_api import create_app
from mistral_api.database_errors import first_line_of
from mistral_api.embedded.postgres import EmbeddedPostgresError
from mistral_api.services import services_of
from mistral_api.settings import SettingError


@contextlib.contextmanager
def command_engine() -> Iterator[Engine]:
    """Connections to the database; what goes wrong with it becomes one sentence and exit code 1."""
    try:
        app = create_app()
    except (SettingError, EmbeddedPostgresError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield services_of(app).engine
    except SQLAlchemyError as error:
        raise click.ClickException(_sentence(error)) from error
    finally:
        services_of(app).close()


def _sentence(error: SQLAlchemyError) -> str:
    first = first_line_of(error)
    if isinstance(error, ProgrammingError):
        return f"The database's schema is not that of this version ({first}); run 'flask db upgrade'."
    return f"The database cannot be used: {first}."
