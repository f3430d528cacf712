"""The WSGI entry point: ``waitress-serve wsgi:app``, and the application of ``flask db upgrade`` and its like.

A web server prepares the database as ``bin/serve`` does. Of the commands of ``flask`` only ``flask db upgrade`` may
make a database; those that use one refuse one that is away, another program's, or of a newer version.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import click
from flask import Flask

from mistral_api.application import create_app, flask_context, prepare_database, require_database
from mistral_api.errors import StartError
from mistral_api.settings import SettingError, load_settings
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.exit_signals import exit_at_stop_signals

_UPGRADE = "db upgrade"
_DATABASE_COMMANDS = frozenset(
    ("shell", "db check", "db current", "db downgrade", "db migrate", "db revision", "db stamp", _UPGRADE)
)
# For commands that use no database. Nothing connects to it.
_NO_DATABASE = "postgresql+psycopg2:///"
# Options of ``flask`` itself that are followed by a value.
_WITH_VALUE = frozenset(("-A", "--app", "-e", "--env-file"))


def _served() -> Flask:
    served = create_app()
    prepare_database(served)
    return served


def _for_command(arguments: Sequence[str]) -> Flask:
    """Return the application for a command of ``flask``. Raises SettingError, StartError."""
    command = _command(arguments)
    if command == "run":
        return _served()
    if command not in _DATABASE_COMMANDS or "--help" in arguments:
        return create_app(replace(load_settings(), database_url=_NO_DATABASE))
    loaded = create_app(create=command == _UPGRADE)
    if "--sql" not in arguments:  # which prints what it would do
        require_database(loaded, current=False)
    return loaded


def _command(arguments: Sequence[str]) -> str:
    """Return the command among the arguments of ``flask``, such as ``db upgrade``."""
    words = [
        word
        for before, word in zip(("", *arguments), arguments, strict=False)
        if not word.startswith("-") and before not in _WITH_VALUE
    ]
    return " ".join(words[: 2 if words[:1] == ["db"] else 1])


try:
    with exit_at_stop_signals():
        app = _for_command(sys.argv[1:]) if flask_context() is not None else _served()
except (SettingError, StartError) as error:
    click.echo(str(error), err=True)
    raise SystemExit(ExitCode.CANNOT_START) from error
