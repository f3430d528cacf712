"""The commands ``flask db``. Loaded for them alone: Alembic, which they need, takes 9 MB of a server's memory."""

from __future__ import annotations

from flask import Flask
from flask_migrate import Migrate

from mistral_api.database.revisions import MIGRATIONS
from mistral_api.web.database_session import db

migrate = Migrate()


def add_migration_commands(app: Flask) -> None:
    """Let ``flask db`` find the migrations of the application."""
    # Alembic takes a % for a variable.
    migrate.init_app(app, db, directory=str(MIGRATIONS).replace("%", "%%"))
