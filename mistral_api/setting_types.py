"""How the text of an environment variable becomes a value, and what it may be.

A :class:`Kind` reads one text and says in words what it allows; ``settings`` declares which
setting is of which kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A reader of one setting's text; ``read`` raises ValueError for what is not allowed."""

    read: Callable[[str], T]
    allowed: str


def whole_number(low: int, high: int) -> Kind[int]:
    """A decimal whole number within both bounds."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(read, f"a whole number from {low} to {high}")


def seconds(low: float, high: float) -> Kind[float]:
    """A duration in seconds within both bounds."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(read, f"a number of seconds from {low:g} to {high:g}")


def choice(*names: str) -> Kind[str]:
    """One of a few words, in any case; the value is as it is written here."""
    spelled = {name.upper(): name for name in names}

    def read(text: str) -> str:
        if text.upper() not in spelled:
            raise ValueError(text)
        return spelled[text.upper()]

    return Kind(read, "one of " + ", ".join(names))


_YES = ("true", "1", "yes", "on")
_NO = ("false", "0", "no", "off")


def _read_yes_or_no(text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise ValueError(text)
    return text.lower() in _YES


def _read_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_%*-]+", text):
        raise ValueError(text)
    return "0.0.0.0" if text == "*" else text  # noqa: S104 - refused later without a key in force


def _read_server_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError(text)
    return text.rstrip("/").removesuffix("/v1")


def _read_database_url(text: str) -> str:
    """The URL with the driver SQLAlchemy needs; hosting companies hand out ``postgres://``."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg2") or not rest:
        raise ValueError(text)
    return f"postgresql+psycopg2://{rest}"


def _read_gpu_layers(text: str) -> str:
    if text.lower() in ("auto", "all"):
        return text.lower()
    return str(whole_number(0, 10_000).read(text))


def _read_aliases(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*", name) for name in names):
        raise ValueError(text)
    return ",".join(names)


def _read_path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    return Path(text).expanduser()


YES_OR_NO: Kind[bool] = Kind(_read_yes_or_no, "true or false")
HOST: Kind[str] = Kind(_read_host, "a host name or an IP address")
SERVER_URL: Kind[str] = Kind(_read_server_url, "an http:// or https:// URL of a model server")
DATABASE_URL: Kind[str] = Kind(_read_database_url, "a URL that begins with postgres:// or postgresql://")
GPU_LAYERS: Kind[str] = Kind(_read_gpu_layers, "a whole number of layers, auto or all")
ALIASES: Kind[str] = Kind(_read_aliases, "model ids of letters, digits and . _ : / @ + -, separated by commas")
PATH: Kind[Path] = Kind(_read_path, "a file path")
