"""Paths as unit files take them: systemd.unit(5), "Specifiers", and systemd.service(5), "Command Lines"."""

from __future__ import annotations

from pathlib import Path

from mistral_api.registration.errors import RegistrationError

# Quoting rules differ from directive to directive; nobody has these in a path, so they are refused.
_REFUSED = frozenset("\"'\\")


def plain(path: Path) -> str:
    """For a directive that takes one path to the end of the line. Raises RegistrationError."""
    text = str(path)
    if not text.isprintable() or text != text.strip() or _REFUSED & set(text):
        raise RegistrationError(f"The path {text!r} cannot be written into a unit file: choose a simpler one.")
    return text.replace("%", "%%")


def quoted(path: Path) -> str:
    """For a directive that takes words, such as a list of paths or the program of a command line."""
    return f'"{plain(path)}"'


def assignment(name: str, path: Path) -> str:
    """One word of ``Environment=``, where a dollar sign has no meaning."""
    return f'"{name}={plain(path)}"'
