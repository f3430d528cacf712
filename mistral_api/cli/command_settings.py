"""The settings of a command of ``mistral-api``."""

from __future__ import annotations

import functools

import click

from mistral_api.settings import Settings, load_settings, warn_of_misspellings


def command_settings() -> Settings:
    """Return the settings, and name those that are misspelt on the standard error stream. Raises SettingError."""
    settings = load_settings()
    warn_of_misspellings(functools.partial(click.echo, err=True))
    return settings
