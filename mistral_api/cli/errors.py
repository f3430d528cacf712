"""How a command of ``mistral-api`` ends that cannot do what it was asked for."""

from __future__ import annotations

import click

from mistral_api.system.exit_codes import ExitCode


class CannotGoOn(click.ClickException):
    """The command cannot go on as things are, and has changed nothing: one sentence, and exit code 2."""

    exit_code = ExitCode.CANNOT_START
