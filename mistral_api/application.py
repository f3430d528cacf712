"""The application factory: settings, database, services, errors, blueprints, from top to bottom."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, Request, Response
from flask.cli import FlaskGroup
from flask.sessions import NullSession, SessionInterface, SessionMixin
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.routing import MapAdapter

from mistral_api.database.deadlines import answer_within
from mistral_api.database.engine import (
    check_connections,
    engine_options,
    join_database,
    open_database,
    prepare_connections,
)
from mistral_api.database.preparation import (
    LOOK_SECONDS,
    refuse_foreign_schema,
    require_current_schema,
    unusable,
)
from mistral_api.event_loop.wsgi import ON_DISCONNECT
from mistral_api.ipc.siblings import ALONE, Siblings
from mistral_api.services import EXTENSION, Services, services_of
from mistral_api.settings import Settings, load_settings, warn_of_misspellings
from mistral_api.system.logs import configure_command_log, configure_server_log
from mistral_api.tracing.opening import require_tracing
from mistral_api.web import register_blueprints
from mistral_api.web.cors import allow_origins
from mistral_api.web.database_session import db
from mistral_api.web.errors import handle_errors
from mistral_api.web.finished_request import observe_requests
from mistral_api.web.guard import guard_requests
from mistral_api.web.lazy_response import LazyBody
from mistral_api.web.paths import answer_spellings
from mistral_api.web.rate_limits import register_rate_limits
from mistral_api.web.request import OrjsonProvider, register_request_ids
from mistral_api.web.request_arrival import measure_arrivals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

# What the finding of routes depends on, besides path and method.
_HOST_KEYS = ("HTTP_HOST", "wsgi.url_scheme", "SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT")
_PATH_KEYS = ("PATH_INFO", "QUERY_STRING")
# So many hosts are remembered at once: clients may name any, before somebody looks whether we answer to it.
MOST_HOSTS = 100


class NoSessions(SessionInterface):
    """Sessions of Flask's, in cookies: there are none."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Return the session of all requests, which holds nothing."""
        return _NO_SESSION

    def is_null_session(self, obj: object) -> bool:
        """Whether a session is none: it is."""
        return True

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Keep nothing."""


_NO_SESSION = NullSession()


class Application(Flask):
    """Flask without asynchronous views (it asks each of ten functions a request whether it is one), under any server.

    Responses that begin when they are iterated are for our own web server alone. PEP 3333 allows them, but granian
    reads the status as soon as the application returns.
    """

    # Nothing is kept between the requests of a client.
    session_interface = NoSessions()

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        # What finds routes, by all that it depends on besides path and method: the host that a client names, mostly.
        self._adapters: dict[tuple[object, ...], tuple[MapAdapter, str]] = {}

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds the route of a request. Flask looks at its host each time, and encodes it anew."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        key = tuple(map(environ.get, _HOST_KEYS))
        known = self._adapters.get(key)
        if known is None:
            made = super().create_url_adapter(request)
            if made is not None:
                if len(self._adapters) >= MOST_HOSTS:
                    self._adapters.clear()
                self._adapters[key] = made, request.host
            return made
        of_host, request.host = known
        path, query = (environ.get(name, "").encode("latin-1").decode(errors="replace") for name in _PATH_KEYS)
        return MapAdapter(
            self.url_map,
            of_host.server_name,
            of_host.script_name,
            of_host.subdomain,
            of_host.url_scheme,
            path,
            environ["REQUEST_METHOD"],
            query,
        )

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Answer a request. Under another server than ours the response has begun when this returns."""
        body = super().wsgi_app(environ, start_response)
        if isinstance(body, LazyBody) and ON_DISCONNECT not in environ:
            body.begin()
        return body

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is."""
        return func


def create_app(
    settings: Settings | None = None, *, create: bool = True, delivers: bool = True, siblings: Siblings = ALONE
) -> Flask:
    """Return the WSGI application. Raises SettingError, or StartError where no embedded PostgreSQL can be had.

    ``create`` false is for commands: it makes no embedded PostgreSQL where there is none yet. A database in
    DATABASE_URL is not asked for anything here. ``delivers`` false: another process of the same DATA_DIR delivers what
    this one journals. ``siblings``: the other API processes of the same ``bin/serve``; the first one has the embedded
    PostgreSQL.
    """
    settings = settings or load_settings()
    _configure_log(settings)
    warn_of_misspellings(log.warning)
    if create and not is_flask_command():
        require_tracing(os.environ)

    app = Application(__name__)
    app.json = OrjsonProvider(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes

    database = open_database(settings, create=create) if siblings.first is None else join_database(settings)
    app.config["SQLALCHEMY_DATABASE_URI"] = database.url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings, database.url)
    db.init_app(app)
    if is_flask_command():
        importlib.import_module("mistral_api.web.migration_commands").add_migration_commands(app)
    with app.app_context():
        engine = db.engine
    prepare_connections(engine, settings)
    check_connections(engine)
    app.extensions[EXTENSION] = Services(settings, engine, database, delivers=delivers, siblings=siblings)

    register_request_ids(app)
    measure_arrivals(app)
    register_rate_limits(app)
    handle_errors(app)
    allow_origins(app, settings)
    register_blueprints(app)
    guard_requests(app)
    answer_spellings(app)
    observe_requests(app, services_of(app.extensions).finished_requests)
    return app


def _configure_log(settings: Settings) -> None:
    """Log as a server; as a command where Flask's command line makes the application for one of its commands."""
    if is_flask_command():
        configure_command_log()
    else:
        configure_server_log(settings.log_options, "api")


def flask_context() -> click.Context | None:
    """Return the context of Flask's command line where one of its commands runs, or None."""
    context = click.get_current_context(silent=True)
    root = None if context is None else context.find_root()
    return root if root is not None and isinstance(root.command, FlaskGroup) else None


def is_flask_command() -> bool:
    """Whether Flask's command line makes the application for a command other than ``flask run``."""
    context = flask_context()
    return context is not None and context.invoked_subcommand != "run"


def prepare_database(app: Flask) -> None:
    """Look at the database and bring its schema to this version; where it is away, as soon as it is there.

    A server calls this before it serves. Raises StartError where only the operator can mend it: a wrong password, a
    database that does not exist, tables of another program, a schema of a newer version. A database that does
    not answer in time is left to a thread.
    """
    services_of(app.extensions).preparation.begin()


def require_database(app: Flask, *, current: bool = True) -> None:
    """Refuse, for a command, a database that is away, another program's, newer or, with ``current``, older than this
    version. Nothing is changed in it. Raises StartError."""
    engine = services_of(app.extensions).engine
    try:
        with engine.connect() as connection, answer_within(LOOK_SECONDS):
            (require_current_schema if current else refuse_foreign_schema)(connection)
    except SQLAlchemyError as error:
        raise unusable(error) from error
    finally:
        engine.dispose()  # a server that forks after this must not share the connection
