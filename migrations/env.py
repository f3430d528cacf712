"""Runs the migrations: on the application's database (Flask-Migrate finds it through wsgi.py), or in a transaction that
``mistral_api.database.revisions`` has begun.
"""

from __future__ import annotations

import click
from alembic import context
from flask import current_app
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.deadlines import without_deadline
from mistral_api.database.errors import unusable_sentence
from mistral_api.database.migration import CONNECTION
from mistral_api.database.ownership import require_own_tables
from mistral_api.database.search_path import create_schema
from mistral_api.database.tables import all_metadata
from mistral_api.system.exit_codes import ExitCode
from mistral_api.web.database_session import db


def _belongs_to_us(_object: object, name: str | None, kind: str, *_rest: object) -> bool:
    """Leave out of comparisons what does not come from the tables' declarations alone.

    The writer makes the partitions of api_usage. The trigram indexes are there where the server has the extension.
    """
    name = name or ""
    return not {"table": name.startswith("api_usage_"), "index": name.endswith("_search_text")}.get(kind, False)


def run_offline() -> None:
    """Print the SQL (``flask db upgrade --sql``) instead of running it."""
    engine = current_app.extensions["migrate"].db.engine
    url = engine.url.render_as_string(hide_password=False)
    context.configure(url=url, target_metadata=all_metadata(), literal_binds=True)
    schema = engine.get_execution_options().get("database_schema")
    with context.begin_transaction():
        if schema is not None:
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            context.execute(f'SET LOCAL search_path TO "{schema}"')
        context.run_migrations()


def run_online(connection: Connection) -> None:
    """Migrate under an advisory lock, so that two starting processes do not migrate together."""
    context.configure(connection=connection, target_metadata=all_metadata(), include_object=_belongs_to_us)
    # A migration of many rows may take longer than any request.
    with context.begin_transaction(), without_deadline(connection):
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(9000)")
        require_own_tables(connection)
        create_schema(connection)
        context.run_migrations()


def run() -> None:
    """Migrate on the connection that the caller has given, else, for ``flask db``, on one of the application's.

    There a failure of the database ends the command with one sentence.
    """
    given: Connection | None = context.config.attributes.get(CONNECTION)
    if given is not None:
        run_online(given)
        return
    try:
        with db.engine.connect() as connection:
            run_online(connection)
    except SQLAlchemyError as error:
        click.echo(f"DATABASE_URL: {unusable_sentence(error)}", err=True)
        raise SystemExit(ExitCode.CANNOT_START) from error


if context.is_offline_mode():
    run_offline()
else:
    run()
