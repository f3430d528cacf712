"""``mistral-api settings``: each setting in effect, where its value came from, and names that are no settings."""

from __future__ import annotations

import json
import os
import re
from dataclasses import Field
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

import click
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from tabulate import tabulate

from mistral_api.control.engine_switches import SwitchVariable, switch_variables
from mistral_api.model_files.served_model import DemoModelMissing, demo_model_path, served_model_names
from mistral_api.settings import (
    LoadedSettings,
    Settings,
    SettingSource,
    load_settings_with_sources,
    sentence_of,
    setting_fields,
)
from mistral_api.supervisor.engine import llama_server_program

_MASK = "***"

# The value of a setting as JSON has it.
_Value = str | int | float | bool | list[str] | None


class _ShownSetting(TypedDict):
    """One setting: its value in effect (a secret masked), and for a default what stands for "not set"."""

    value: _Value
    stands_for: str | None
    source: str
    line: int | None


class _ShownName(TypedDict):
    """A name that is no setting."""

    name: str
    line: int | None
    nearest: str | None


class _ShownSwitch(TypedDict):
    """A switch of llama.cpp's: its value, where it came from, and why it has no effect."""

    value: str
    source: str
    line: int | None
    no_effect: str | None


class _ShownSettings(TypedDict):
    """Everything that the command shows."""

    project: str
    env_file: str | None
    settings: dict[str, _ShownSetting]
    misspelt: list[_ShownName]
    switches: dict[str, _ShownSwitch]


@click.command()
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def settings(changed: bool, as_json: bool) -> None:
    """Show every setting in effect, and whether it comes from .env, the environment or the defaults.

    Passwords and keys are shown as ***. Nothing is changed, and nothing is started.
    """
    loaded = load_settings_with_sources()
    shown = _shown_settings(loaded, only_changed=changed)
    click.echo(json.dumps(shown, indent=1) if as_json else _table(shown))
    if not as_json and loaded.misspellings:
        click.echo(f"\n{sentence_of(loaded.misspellings)}")


def _shown_settings(loaded: LoadedSettings, *, only_changed: bool) -> _ShownSettings:
    rows = {
        name: _shown_setting(each, loaded.settings, loaded.sources[name])
        for name, each in setting_fields()
        if not only_changed or loaded.sources[name].kind != "default"
    }
    return {
        "project": str(loaded.dotenv.path.parent),
        "env_file": str(loaded.dotenv.path) if loaded.dotenv.path.is_file() else None,
        "settings": rows,
        "misspelt": [{"name": each.name, "line": each.line, "nearest": each.nearest} for each in loaded.misspellings],
        "switches": {each.name: _shown_switch(each, loaded) for each in _switches(loaded.settings)},
    }


def _switches(in_force: Settings) -> list[SwitchVariable]:
    return switch_variables(os.environ, bundled=llama_server_program(in_force) is None)


def _shown_switch(switch: SwitchVariable, loaded: LoadedSettings) -> _ShownSwitch:
    written = loaded.dotenv.values.get(switch.name)
    from_file = written is not None and written.text == switch.value
    return {
        "value": _masked_url(switch.value) if "://" in switch.value else switch.value,
        "source": ".env" if from_file else "environment",
        "line": written.line if written is not None and from_file else None,
        "no_effect": switch.why_without_effect,
    }


def _shown_setting(declaration: Field[Any], in_force: Settings, source: SettingSource) -> _ShownSetting:
    value = getattr(in_force, declaration.name)
    return {
        "value": None if value is None else _shown_value(declaration, value),
        "stands_for": _meaning_of_none(declaration, in_force) if value is None else None,
        "source": source.kind,
        "line": source.line,
    }


def _table(shown: _ShownSettings) -> str:
    rows = [
        (name, _text(each["value"]) if each["value"] is not None else each["stands_for"], _source_text(each))
        for name, each in shown["settings"].items()
    ]
    table = tabulate(rows, ("setting", "value", "from"), tablefmt="simple", disable_numparse=True)
    if shown["switches"]:
        table += f"\n\n{_table_of_switches(shown['switches'])}"
    if shown["env_file"] is None:
        return f"There is no .env in {shown['project']}: settings come from the environment.\n\n{table}"
    return f"Settings from {shown['env_file']} and from the environment, which wins.\n\n{table}"


def _table_of_switches(shown: dict[str, _ShownSwitch]) -> str:
    rows = [
        (name, each["value"], _source_text(each), f"no effect: {each['no_effect']}" if each["no_effect"] else "")
        for name, each in shown.items()
    ]
    return tabulate(rows, ("llama.cpp's switch", "value", "from", ""), tablefmt="simple", disable_numparse=True)


def _source_text(shown: _ShownSetting | _ShownSwitch) -> str:
    return shown["source"] if shown["line"] is None else f"{shown['source']} line {shown['line']}"


def _text(value: _Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, list) else str(value)


def _shown_value(declaration: Field[Any], value: object) -> _Value:
    """Return a value without passwords and keys."""
    if declaration.name == "database_url":
        return _masked_database_url(str(value))
    if declaration.name.endswith("_url"):
        return _masked_url(str(value))
    if declaration.metadata["secret"]:
        return _MASK
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return value if isinstance(value, str | int | float | bool) else str(value)


def _masked_database_url(text: str) -> str:
    """Return scheme, user, host, port, database and the names of options; as values of options only ssl modes."""
    try:
        url = make_url(text).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        return _MASK
    masked = {name: value if name == "sslmode" else _MASK for name, value in url.query.items()}
    return url.set(query=masked).render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def _masked_url(text: str) -> str:
    """Return scheme, host, port and, where it holds nothing odd, the path. A user alone may be a token too."""
    url = urlsplit(text)
    _, at, address = url.netloc.rpartition("@")
    host = f"{_MASK}@{address}" if at else address
    path = url.path if re.fullmatch(r"[\w./-]*", url.path) else f"/{_MASK}"
    return f"{url.scheme}://{host}{path}{f'?{_MASK}' if url.query else ''}"


def _meaning_of_none(declaration: Field[Any], in_force: Settings) -> str:
    """Say what is used where a setting is not set."""
    embedding_model = in_force.embedding_model_path
    used = {
        "database_url": f"embedded PostgreSQL in {in_force.data_dir / 'postgres'}",
        "model_path": f"demo model, {_demo_path()}" if in_force.supervised else "none, since MODEL_SERVER_URL is set",
        "model_alias": ",".join(served_model_names(in_force)) if in_force.supervised else "as the model server has it",
        "embedding_model_alias": embedding_model.stem if embedding_model else "none",
        "llama_server_bin": str(llama_server_program(in_force) or "bundled engine"),
    }
    return used.get(declaration.name) or declaration.metadata["default_text"] or "none"


def _demo_path() -> Path | str:
    try:
        return demo_model_path()
    except DemoModelMissing:
        return "which is not installed"
