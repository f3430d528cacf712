"""Runs the migrations on the application's database (Flask-Migrate finds it through wsgi.py)."""

from __future__ import annotations

from alembic import context
from flask import current_app

from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables import conversations, stored, usage  # noqa: F401 - their tables join the metadata
from mistral_api.web.database_session import db


def _belongs_to_us(_object: object, name: str | None, kind: str, *_rest: object) -> bool:
    """Leave out of comparisons what does not come from the tables' declarations alone.

    The writer makes the partitions of api_usage. The trigram indexes are there where the server has the extension.
    """
    name = name or ""
    return not {"table": name.startswith("api_usage_"), "index": name.endswith("_search_text")}.get(kind, False)


def run_offline() -> None:
    """Print the SQL (``flask db upgrade --sql``) instead of running it."""
    url = current_app.extensions["migrate"].db.engine.url.render_as_string(hide_password=False)
    context.configure(url=url, target_metadata=db.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Migrate under an advisory lock, so that two starting processes do not migrate together."""
    with db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=db.metadata, include_object=_belongs_to_us)
        # A migration of many rows may take longer than any request.
        with context.begin_transaction(), without_deadline(connection):
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(9000)")
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
