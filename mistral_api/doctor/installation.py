"""Checks of the installation: the settings, the interpreter, and the packages that the project needs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.settings import LoadedSettings, Settings, sentence_of
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.version import VERSION

DISTRIBUTION = "mistral-local-api"


def check_settings(loaded: LoadedSettings) -> Iterator[Finding]:
    """Say how many settings are not at their default, and which names are no settings."""
    changed = sum(source.kind != "default" for source in loaded.sources.values())
    file = f"'{loaded.dotenv.path}'" if loaded.dotenv.path.is_file() else f"no .env in '{loaded.dotenv.path.parent}'"
    yield ok("settings", f"{changed} of {len(loaded.sources)} are not at their default; {file}")
    if loaded.misspellings:
        yield warning(
            "settings",
            sentence_of(loaded.misspellings),
            f"{installed_command('mistral-api settings')} shows what is in effect",
        )


def check_python(_settings: Settings) -> Iterator[Finding]:
    """Say which Python runs, and where."""
    bits = 64 if sys.maxsize > 2**32 else 32
    text = f"{platform.python_version()}, {bits} bit, {platform.machine()}, in '{sys.prefix}'"
    if bits == 32:
        yield failure("python", f"{text}: the engine and PostgreSQL need 64 bits", "install a 64-bit Python")
        return
    yield ok("python", text)


def check_packages(_settings: Settings) -> Iterator[Finding]:
    """Compare the installed packages with what the project asks for."""
    needed = [requirement for text in requires(DISTRIBUTION) or [] if _applies(requirement := Requirement(text))]
    wrong = [text for requirement in needed if (text := _complaint(requirement)) is not None]
    if wrong:
        yield failure(
            "packages", f"not as needed: {', '.join(wrong)}", f"delete .venv, then: {project_command('serve')}"
        )
        return
    yield ok("packages", f"Mistral Local API {VERSION}, {len(needed)} packages as needed")


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement holds here, without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _complaint(requirement: Requirement) -> str | None:
    """Return what is wrong with a package, or None."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found} and not {requirement.specifier}"
