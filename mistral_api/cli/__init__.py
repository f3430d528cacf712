"""``mistral-api``: the commands for whoever operates a server, on the same settings as the server's."""

from __future__ import annotations

from typing import Any

import click

from mistral_api.cli.audit import audit
from mistral_api.cli.chat import chat
from mistral_api.cli.constraints import constraints
from mistral_api.cli.database import export, prune
from mistral_api.cli.doctor import doctor
from mistral_api.cli.errors import CannotGoOn
from mistral_api.cli.import_command import import_conversations
from mistral_api.cli.keys import keys
from mistral_api.cli.pull import pull
from mistral_api.cli.service import service
from mistral_api.cli.settings import settings
from mistral_api.cli.stats import stats
from mistral_api.cli.transfer import backup, database, restore
from mistral_api.settings import SettingError
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.logs import configure_command_log
from mistral_api.version import VERSION


class _Commands(click.Group):
    """The commands: output never fails at a character, and settings that are not allowed end each with exit code 2."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run what the command line says."""
        escape_unprintable_output()
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> object:
        """Run one command. Settings that are not allowed become a line each."""
        try:
            return super().invoke(context)
        except SettingError as error:
            raise CannotGoOn(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mistral-api")
def main() -> None:
    """Chat with the model, look into, export, import, carry and tidy up what Mistral Local API has recorded, make API
    keys, fetch models.

    Settings come from the environment and from .env in the project's folder, as for the server.
    """
    configure_command_log()


for _command in (
    audit,
    backup,
    chat,
    constraints,
    database,
    doctor,
    export,
    import_conversations,
    keys,
    prune,
    pull,
    restore,
    service,
    settings,
    stats,
):
    main.add_command(_command)
