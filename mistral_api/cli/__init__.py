"""``mistral-api``: the commands for whoever operates a server, on the same settings as the server's."""

from __future__ import annotations

import gc
import importlib
from typing import Any

import click

from mistral_api.cli.errors import CannotGoOn
from mistral_api.settings import SettingError
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.logs import configure_command_log
from mistral_api.version import VERSION

# The module of this package that has each command, and its name there. One is loaded when it is called: all of them
# together, with what they import, take a second.
_COMMANDS = {
    "audit": ("audit", "audit"),
    "backup": ("transfer", "backup"),
    "chat": ("chat", "chat"),
    "constraints": ("constraints", "constraints"),
    "database": ("transfer", "database"),
    "deliver": ("deliver", "deliver"),
    "doctor": ("doctor", "doctor"),
    "engine": ("engine", "engine"),
    "export": ("database", "export"),
    "import": ("import_command", "import_conversations"),
    "keys": ("keys", "keys"),
    "prune": ("database", "prune"),
    "pull": ("pull", "pull"),
    "restore": ("transfer", "restore"),
    "service": ("service", "service"),
    "settings": ("settings", "settings"),
    "stats": ("stats", "stats"),
}
# Those that are servers, and log as such.
_SERVERS = ("deliver",)


class _Commands(click.Group):
    """The commands: output never fails at a character, and settings that are not allowed end each with exit code 2."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*_COMMANDS, *super().list_commands(context)})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, loaded now, or None."""
        if name not in _COMMANDS:
            return super().get_command(context, name)
        module, attribute = _COMMANDS[name]
        was_enabled = gc.isenabled()
        gc.disable()  # importing makes no garbage, and a sixth of its time was the search for some
        try:
            command: click.Command = getattr(importlib.import_module(f"mistral_api.cli.{module}"), attribute)
        finally:
            if was_enabled:
                gc.enable()
        return command

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
@click.pass_context
def main(context: click.Context) -> None:
    """Chat with the model, look into, export, import, carry and tidy up what Mistral Local API has recorded, make API
    keys, fetch models.

    Settings come from the environment and from .env in the project's folder, as for the server.
    """
    if context.invoked_subcommand not in _SERVERS:
        configure_command_log()
