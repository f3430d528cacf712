"""The kinds of settings: how the text of one is read, and what it allows, in words.

:mod:`mistral_api.settings` declares the settings themselves.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

from mistral_api.database_url import read_database_url

T = TypeVar("T")

# The value of MODEL_SERVER_HOST that stands for a Unix socket.
UNIX = "unix"


@dataclass(frozen=True)
class Kind(Generic[T]):
    """The kind of a setting: ``read`` makes its value from text, or raises ValueError for what is not ``allowed``."""

    read: Callable[[str], T]
    allowed: str


def whole_number(low: int, high: int) -> Kind[int]:
    """Return the kind of decimal whole numbers within both bounds."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(read, f"a whole number from {low} to {high}")


def seconds(low: float, high: float) -> Kind[float]:
    """Return the kind of durations in seconds within both bounds."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(read, f"a number of seconds from {low:g} to {high:g}")


def choice(*names: str) -> Kind[str]:
    """Return the kind of a few words, in any case; the value is spelled as it is here."""
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


def _read_model_host(text: str) -> str:
    if text.lower() == UNIX and sys.platform == "win32":  # neither Python nor llama.cpp has such sockets there
        raise ValueError(text)
    return UNIX if text.lower() == UNIX else _read_host(text)


def _read_server_key(text: str) -> str:
    """Return a key that can stand in a header; llama.cpp separates several keys by commas."""
    if not re.fullmatch(r"[!-+\--~]+", text):
        raise ValueError(text)
    return text


def _read_server_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or re.search(r"\s", text):
        raise ValueError(text)
    if url.port == 0 or not url.hostname.encode("idna"):  # both raise ValueError for what is none
        raise ValueError(text)
    return text.rstrip("/").removesuffix("/v1")


def _read_index_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or re.search(r"\s", text):
        raise ValueError(text)
    if url.port == 0:  # it raises ValueError for what is none
        raise ValueError(text)
    return text.rstrip("/")


def _read_redis_url(text: str) -> str:
    """Return a URL that the ``limits`` package takes."""
    url = urlsplit(text)
    target = url.path if url.scheme == "redis+unix" else url.hostname
    if url.scheme not in ("redis", "rediss", "redis+unix") or not target or url.port == 0:
        raise ValueError(text)
    return text


def _read_schema_name(text: str) -> str:
    """Return the name of a schema: one that needs no quotes, and none that PostgreSQL keeps for itself."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text) or text.startswith("pg_") or text == "information_schema":
        raise ValueError(text)
    return text


def _read_gpu_layers(text: str) -> str:
    if text.lower() in ("auto", "all"):
        return text.lower()
    return str(whole_number(0, 10_000).read(text))


def _read_aliases(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*", name) for name in names):
        raise ValueError(text)
    return ",".join(names)


# Their values are secrets, which must not become the ids of conversations.
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key")


def _read_header_names(text: str) -> tuple[str, ...]:
    """Return the names of headers. waitress drops those with an underscore, so these are refused here."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9-]+", name) and name.lower() not in _SECRET_HEADERS for name in names):
        raise ValueError(text)
    return names


def _names_in(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


_HOST_NAME = re.compile(r"\*|(?:\*?\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[?[0-9A-Fa-f:.]+\]?")


def _read_host_names(text: str) -> tuple[str, ...]:
    names = tuple(_names_in(text))
    if not names or not all(_HOST_NAME.fullmatch(name) for name in names):
        raise ValueError(text)
    return names


# RFC 6454, section 6.2. Apps have schemes of their own: chrome-extension, vscode-webview, tauri.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _read_origins(text: str) -> tuple[str, ...]:
    """Return origins as browsers send them: in small letters, without a path or a default port.

    ``*`` and ``null``, which pages of every site can send, are refused.
    """
    origins = tuple(name.lower().rstrip("/") for name in _names_in(text))
    if not origins or not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(text)
    return tuple(origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "/")) for origin in origins)


IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _read_networks(text: str) -> tuple[IPNetwork, ...]:
    networks = tuple(ipaddress.ip_network(name, strict=False) for name in _names_in(text))
    if not networks:
        raise ValueError(text)
    return networks


def _read_path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such home folder
        raise ValueError(text) from error


def _read_secret(text: str) -> str:
    if not re.fullmatch(r"[!-~]{16,512}", text):
        raise ValueError(text)
    return text


YES_OR_NO: Kind[bool] = Kind(_read_yes_or_no, "true or false")
HOST: Kind[str] = Kind(_read_host, "a host name or an IP address")
MODEL_HOST: Kind[str] = Kind(_read_model_host, "a host name, an IP address, or, except on Windows, unix")
SERVER_KEY: Kind[str] = Kind(_read_server_key, "a key of ASCII letters, digits and signs, without spaces and commas")
SERVER_URL: Kind[str] = Kind(_read_server_url, "an http:// or https:// URL of a model server")
INDEX_URL: Kind[str] = Kind(_read_index_url, "an http:// or https:// URL of an index of packages")
REDIS_URL: Kind[str] = Kind(
    _read_redis_url, "a URL such as redis://:password@host:6379/0, rediss://… with TLS, or redis+unix:///path"
)
DATABASE_URL: Kind[str] = Kind(
    read_database_url, "a URL such as postgres://user:password@host:5432/database?sslmode=require"
)
SCHEMA_NAME: Kind[str] = Kind(
    _read_schema_name, "a name of at most 63 small letters, digits and _ that begins with no digit and not with pg_"
)
GPU_LAYERS: Kind[str] = Kind(_read_gpu_layers, "a whole number of layers, auto or all")
ALIASES: Kind[str] = Kind(_read_aliases, "model ids of letters, digits and . _ : / @ + -, separated by commas")
HEADER_NAMES: Kind[tuple[str, ...]] = Kind(
    _read_header_names, "names of headers of letters, digits and -, separated by commas, none of which carries a key"
)
HOST_NAMES: Kind[tuple[str, ...]] = Kind(
    _read_host_names, "host names without a scheme or port, separated by commas; .example.com is all below it, * any"
)
ORIGINS: Kind[tuple[str, ...]] = Kind(
    _read_origins, "origins such as https://chat.example.com or http://localhost:3000, separated by commas"
)
NETWORKS: Kind[tuple[IPNetwork, ...]] = Kind(
    _read_networks, "IP addresses or networks such as 10.0.0.0/8, separated by commas"
)
SECRET: Kind[str] = Kind(_read_secret, "16 to 512 letters, digits and signs of ASCII without a space")
PATH: Kind[Path] = Kind(_read_path, "a file path")
# The path of a program, or the name of one that is found on PATH.
PROGRAM: Kind[Path] = Kind(_read_path, "the path of a program, or its name where it is on PATH")
