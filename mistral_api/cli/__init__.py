"""``mistral-api``: the commands for whoever operates a server, on the same settings as the server's."""

from __future__ import annotations

import click

from mistral_api.cli.audit import audit
from mistral_api.cli.constraints import constraints
from mistral_api.cli.database import export, prune
from mistral_api.cli.errors import CannotGoOn
from mistral_api.cli.import_command import import_conversations
from mistral_api.cli.keys import keys
from mistral_api.cli.pull import pull
from mistral_api.cli.service import service
from mistral_api.cli.settings import settings
from mistral_api.cli.stats import stats
from mistral_api.cli.transfer import backup, database, restore
from mistral_api.settings import SettingError
from mistral_api.version import VERSION


class _Commands(click.Group):
    """A group in which settings that are not allowed end every command with exit code 2 and a line about each."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except SettingError as error:
            raise CannotGoOn(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mistral-api")
def main() -> None:
    """Look into, export, import, carry and tidy up what Mistral Local API has recorded, make API keys, fetch models.

    Settings come from the environment and from .env in the project's folder, as for the server.
    """


for _command in (
    audit,
    backup,
    constraints,
    database,
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
