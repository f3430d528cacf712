"""The application factory: settings, database, services, errors, blueprints, from top to bottom."""

from __future__ import annotations

from alembic.util.exc import CommandError
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.engine import MIGRATIONS, check_connections, engine_options, limit_statements, open_database
from mistral_api.database.errors import error_message
from mistral_api.errors import StartError
from mistral_api.services import EXTENSION, Services
from mistral_api.settings import Settings, load_settings
from mistral_api.system.logs import configure_logging
from mistral_api.web import register_blueprints
from mistral_api.web.database_session import db, migrate
from mistral_api.web.errors import handle_errors
from mistral_api.web.request import OrjsonProvider, register_request_ids


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
    limit_statements(engine)
    check_connections(engine)
    app.extensions[EXTENSION] = Services(settings, engine, database.release)

    register_request_ids(app)
    handle_errors(app)
    register_blueprints(app)
    return app


def upgrade_database(app: Flask) -> None:
    """Bring the schema to this version. Raises StartError with the database's own first line."""
    try:
        with app.app_context():
            upgrade()
    except CommandError as error:
        raise StartError(f"DATABASE_URL: the schema cannot be brought to this version: {error}.") from error
    except SQLAlchemyError as error:
        raise StartError(f"DATABASE_URL: the database cannot be used: {error_message(error)}.") from error
