"""The WSGI entry point: ``waitress-serve wsgi:app``, ``flask db upgrade``."""

import click

from mistral_api import create_app
from mistral_api.application import refuse_foreign_tables
from mistral_api.errors import StartError
from mistral_api.settings import SettingError
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.exit_signals import exit_at_stop_signals

try:
    with exit_at_stop_signals():
        app = create_app()
        refuse_foreign_tables(app)
except (SettingError, StartError) as error:
    click.echo(str(error), err=True)
    raise SystemExit(ExitCode.CANNOT_START) from error
