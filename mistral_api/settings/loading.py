"""The settings in force: the environment, ``.env`` behind it, then the defaults; and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, Literal

from mistral_api.database_url import BadDatabaseUrl
from mistral_api.setting_kinds import PATH, PROGRAM, SERVER_URL, Kind
from mistral_api.settings.declaration import Settings, setting_fields
from mistral_api.settings.dotenv_file import DotenvFile, locate, read_dotenv_file
from mistral_api.settings.errors import SettingError
from mistral_api.settings.misspelling import Misspelling, find_misspellings, note_misspellings
from mistral_api.system.project import project_folder


@dataclass(frozen=True, slots=True)
class SettingSource:
    """Where the value of a setting came from. ``path`` and ``line`` are those of ``.env``."""

    kind: Literal["default", "environment", ".env"]
    path: Path | None = None
    line: int | None = None


DEFAULT, ENVIRONMENT = SettingSource("default"), SettingSource("environment")


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, the source of each by its name, ``.env``, and the names that are no settings."""

    settings: Settings
    sources: Mapping[str, SettingSource]
    dotenv: DotenvFile
    misspellings: tuple[Misspelling, ...]


def load_settings() -> Settings:
    """Return the settings in force, as :func:`load_settings_with_sources` reads them. Raises SettingError.

    :func:`warn_of_misspellings` says afterwards which names are no settings.
    """
    loaded = load_settings_with_sources()
    note_misspellings(loaded.misspellings)
    return loaded.settings


def load_settings_with_sources() -> LoadedSettings:
    """Read ``.env`` of the project's folder into the environment, which wins, then the settings.

    A relative path in ``.env`` and the default DATA_DIR count from the project's folder, one in the environment from
    the working directory. Raises SettingError that names every setting whose value is not allowed.
    """
    dotenv = read_dotenv()
    sources = {name: _source(name, dotenv) for name, _ in setting_fields()}
    return LoadedSettings(_settings(os.environ, sources), sources, dotenv, find_misspellings(dotenv, os.environ))


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the settings from a mapping of variables, without ``.env``. Raises SettingError for values not allowed."""
    texts = {name: environment.get(name, "").strip() for name, _ in setting_fields()}
    return _settings(texts, {name: ENVIRONMENT if text else DEFAULT for name, text in texts.items()})


def read_dotenv() -> DotenvFile:
    """Read ``.env`` of the project's folder into the environment, which wins. Raises SettingError.

    What it says is there for this process's children too, such as tokens and the variables of llama.cpp.
    """
    dotenv = read_dotenv_file(project_folder() / ".env", os.environ)
    for name, value in dotenv.values.items():
        if os.environ.get(name, value.parsed) == value.parsed:
            os.environ[name] = value.text
    return dotenv


def _source(name: str, dotenv: DotenvFile) -> SettingSource:
    """Return where a setting comes from. A variable with the value of ``.env`` was set from there, or may have been."""
    text, in_file = os.environ.get(name, ""), dotenv.values.get(name)
    if not text.strip():
        return DEFAULT
    if in_file is not None and text == in_file.text:
        return SettingSource(".env", dotenv.path, in_file.line)
    return ENVIRONMENT


def _settings(texts: Mapping[str, str], sources: Mapping[str, SettingSource]) -> Settings:
    values: dict[str, Any] = {}
    refused: list[str] = []
    for name, each in setting_fields():
        if sources[name] is not DEFAULT:
            try:
                values[each.name] = _read(name, each, texts[name].strip(), sources[name])
            except SettingError as error:
                refused += error.sentences
    if refused:
        raise SettingError(*refused)
    return Settings(**values)


def _read(name: str, declaration: Field[Any], text: str, source: SettingSource) -> Any:
    kind: Kind[Any] = declaration.metadata["kind"]
    where = "" if source.path is None else f" in '{source.path}' line {source.line}"
    try:
        value = kind.read(text)
    except BadDatabaseUrl as error:
        raise SettingError(f"{name}{where}: {error}.") from None
    except ValueError as error:
        hidden = declaration.metadata["secret"] or (kind is SERVER_URL and _may_hold_a_key(text))
        shown = "its value" if hidden else f"'{text}'"
        raise SettingError(f"{name}{where}: {shown} is not allowed; give {kind.allowed}.") from error
    return Path(locate(kind, str(value), Path.cwd())) if kind in (PATH, PROGRAM) else value


def _may_hold_a_key(url: str) -> bool:
    """Whether a URL, which may be none, has a user, a password or a query."""
    return "@" in url or "?" in url
