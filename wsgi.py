"""The WSGI entry point: ``waitress-serve wsgi:app``, and the application of ``flask db upgrade`` and its like.

A web server prepares the database as ``bin/serve`` does. Of the commands of ``flask`` only ``flask db upgrade`` may
make a database; those that use one refuse one that is away, another program's, or of a newer version.
"""

from __future__ import annotations

import click
from flask import Flask
from flask.cli import FlaskGroup, NoAppException

from mistral_api import create_app
from mistral_api.application import prepare_database, require_database
from mistral_api.errors import StartError
from mistral_api.settings import SettingError
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.exit_signals import exit_at_stop_signals

_DATABASE_COMMANDS = frozenset(
    f"db {name}" for name in ("check", "current", "downgrade", "migrate", "stamp", "upgrade")
)


def _application(command: str | None, *, offline: bool) -> Flask:
    """Return the application for a command of ``flask``, or, with None, for a web server.

    ``offline``: the command prints SQL (``--sql``) and asks no database. Raises SettingError, StartError.
    """
    if command in (None, "run"):
        served = create_app()
        prepare_database(served)
        return served
    loaded = create_app(create=command == "db upgrade")
    if command in _DATABASE_COMMANDS and not offline:
        require_database(loaded, current=False)
    return loaded


def _flask_command(context: click.Context | None) -> str | None:
    """Return the command of ``flask`` that loads this module, such as ``db upgrade``, or None in a web server."""
    if context is None or not isinstance(context.find_root().command, FlaskGroup):
        return None
    names = []
    while context.parent is not None:
        names.append(context.info_name or "")
        context = context.parent
    return " ".join(reversed(names))


_context = click.get_current_context(silent=True)
_command = _flask_command(_context)
try:
    with exit_at_stop_signals():
        app = _application(_command, offline=_context is not None and bool(_context.params.get("sql")))
except (SettingError, StartError) as error:
    if _command == "":  # ``flask --help`` shows this above the commands
        raise NoAppException(str(error)) from error
    click.echo(str(error), err=True)
    raise SystemExit(ExitCode.CANNOT_START) from error
