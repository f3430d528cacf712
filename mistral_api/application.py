"""The application factory: settings, database, services, errors, blueprints, from top to bottom."""

from __future__ import annotations

import logging

from alembic.util.exc import CommandError
from flask import Flask
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from mistral_api.database.engine import check_connections, engine_options, open_database, prepare_connections
from mistral_api.database.errors import error_message
from mistral_api.database.ownership import require_own_tables
from mistral_api.database.revisions import MIGRATIONS, migrate_to, newest_revision, refuse_newer
from mistral_api.errors import StartError
from mistral_api.services import EXTENSION, Services, services_of
from mistral_api.settings import Settings, load_settings
from mistral_api.system.logs import configure_logging
from mistral_api.web import register_blueprints
from mistral_api.web.cors import allow_origins
from mistral_api.web.database_session import db, migrate
from mistral_api.web.errors import handle_errors
from mistral_api.web.guard import guard_requests
from mistral_api.web.rate_limits import register_rate_limits
from mistral_api.web.request import OrjsonProvider, register_request_ids

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the WSGI application. Raises SettingError, or StartError where no database can be had."""
    settings = settings or load_settings()
    configure_logging(settings.log_level)

    app = Flask(__name__, static_folder=None)
    app.json = OrjsonProvider(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes

    database = open_database(settings)
    app.config["SQLALCHEMY_DATABASE_URI"] = database.url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings, database.url)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    with app.app_context():
        engine = db.engine
    prepare_connections(engine, settings)
    check_connections(engine)
    app.extensions[EXTENSION] = Services(settings, engine, database)

    register_request_ids(app)
    register_rate_limits(app)
    handle_errors(app)
    allow_origins(app, settings)
    register_blueprints(app)
    guard_requests(app)
    return app


def refuse_foreign_tables(app: Flask) -> None:
    """Refuse a database in which another program has tables of our names. Raises StartError.

    A database that is away is not refused: the API serves without it.
    """
    engine = services_of(app.extensions).engine
    try:
        with engine.connect() as connection:
            require_own_tables(connection)
    except OperationalError as error:
        log.warning("the database is not looked at, since it cannot be used: %s", error_message(error))
    finally:
        engine.dispose()  # a server that forks after this must not share the connection


def upgrade_database(app: Flask) -> None:
    """Bring the schema to this version. Raises StartError with the database's own first line."""
    try:
        with services_of(app.extensions).engine.begin() as connection:
            require_own_tables(connection)
            refuse_newer(connection)
            migrate_to(connection, newest_revision())
    except (CommandError, SQLAlchemyError) as error:
        raise StartError(f"DATABASE_URL: the database cannot be used: {error_message(error)}.") from error
