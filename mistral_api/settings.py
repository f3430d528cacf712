"""The settings: each declared once, with its kind, default and meaning.

A setting's name is its environment variable; ``.env`` in the working directory is read too, and the real environment
wins over it. An empty value counts as not set. A :class:`Kind` reads the text of one setting and says in words what it
allows. The README table and ``.env.example`` are checked against this module.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import psutil
from dotenv import load_dotenv

from mistral_api.system.addresses import url_of

# The value of MODEL_SERVER_HOST that stands for a Unix socket, and the longest path of one (unix(7): 107 bytes on
# Linux; 103 on macOS).
UNIX, MAX_SOCKET_PATH = "unix", 103

T = TypeVar("T")
D = TypeVar("D")


class SettingError(ValueError):
    """A setting has a value that is not allowed; the message is one sentence for the operator."""


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
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError(text)
    return text.rstrip("/").removesuffix("/v1")


# What stands behind ``postgres://``, taken apart as SQLAlchemy does it, which fails where the port is no number:
# user and password, host, port.
_DATABASE_ADDRESS = re.compile(r"(?:[^:/]*(?::[^@]*)?@)?+(?:\[[^/?]+\]|[^/:?@]+)?(?::[0-9]+)?(?:[/?]|$)")


def _read_database_url(text: str) -> str:
    """Return the URL with the driver that SQLAlchemy needs; hosting companies give ``postgres://``."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg2") or not rest:
        raise ValueError(text)
    if not _DATABASE_ADDRESS.match(rest):
        raise ValueError(text)
    return f"postgresql+psycopg2://{rest}"


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
    return Path(text).expanduser()


def _read_secret(text: str) -> str:
    if not re.fullmatch(r"[!-~]{16,512}", text):
        raise ValueError(text)
    return text


YES_OR_NO: Kind[bool] = Kind(_read_yes_or_no, "true or false")
HOST: Kind[str] = Kind(_read_host, "a host name or an IP address")
MODEL_HOST: Kind[str] = Kind(_read_model_host, "a host name, an IP address, or, except on Windows, unix")
SERVER_KEY: Kind[str] = Kind(_read_server_key, "a key of ASCII letters, digits and signs, without spaces and commas")
SERVER_URL: Kind[str] = Kind(_read_server_url, "an http:// or https:// URL of a model server")
REDIS_URL: Kind[str] = Kind(
    _read_redis_url, "a URL such as redis://:password@host:6379/0, rediss://… with TLS, or redis+unix:///path"
)
DATABASE_URL: Kind[str] = Kind(
    _read_database_url,
    "a URL that begins with postgres:// or postgresql://, with a port that is a number and an @ in the password as %40",
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


def _physical_cores() -> int:
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _setting(
    kind: Kind[T], default: D, meaning: str, *, default_text: str | None = None, secret: bool = False
) -> T | D:
    """Declare one setting; ``default_text`` is the default in words where the value alone says too little."""
    metadata = {"kind": kind, "meaning": meaning, "default_text": default_text, "secret": secret}
    declared: T | D = field(default=default, repr=not secret, metadata=metadata)
    return declared


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings in force: made by :func:`load_settings`, or directly in tests.

    Raises SettingError for settings that contradict each other.
    """

    database_url: str | None = _setting(
        DATABASE_URL,
        None,
        "PostgreSQL 13 or newer; SSL options in the URL are kept",
        default_text="embedded PostgreSQL in DATA_DIR",
        secret=True,
    )
    database_schema: str | None = _setting(
        SCHEMA_NAME,
        None,
        "schema of our tables, made where it is missing; for a database that other programs use too",
        default_text="the first of the search path: public",
    )
    database_pool_size: int = _setting(
        whole_number(1, 100),
        5,
        "most connections to PostgreSQL per process that read; one more writes, one watches the API keys",
    )
    api_host: str = _setting(HOST, "127.0.0.1", "address the API listens on")
    api_port: int = _setting(whole_number(0, 65535), 9000, "port the API listens on; 0 takes a free one")
    api_threads: int = _setting(whole_number(1, 1024), 64, "waitress threads: the most requests in flight")
    admin_api_key: str | None = _setting(
        SECRET,
        None,
        "an API key with all scopes, besides those that `mistral-api keys` makes; at least 16 characters",
        default_text="none",
        secret=True,
    )
    allow_anonymous: bool = _setting(YES_OR_NO, False, "serve clients beyond loopback although no API key is in force")
    loopback_trust: bool = _setting(
        YES_OR_NO,
        False,
        "although API keys exist, whoever calls from this machine may do everything without one",
    )
    allowed_hosts: tuple[str, ...] | None = _setting(
        HOST_NAMES,
        None,
        "names that clients reach this server by, beside localhost, IP addresses and API_HOST; .example.com is all "
        "below it, * any",
        default_text="none",
    )
    cors_origins: tuple[str, ...] | None = _setting(
        ORIGINS,
        None,
        "origins of web pages that may use the API, such as http://localhost:3000, separated by commas",
        default_text="none",
    )
    trusted_proxies: tuple[IPNetwork, ...] | None = _setting(
        NETWORKS,
        None,
        "addresses or networks of proxies whose headers say who the client is, separated by commas",
        default_text="none",
    )
    anonymous_requests_per_minute: int = _setting(
        whole_number(0, 1_000_000), 600, "requests a minute from an address without a key; 0 sets no limit"
    )
    anonymous_tokens_per_minute: int = _setting(
        whole_number(0, 1 << 40),
        500_000,
        "tokens a minute, of prompts and answers, of such an address; 0 sets no limit",
    )
    anonymous_tokens_per_day: int = _setting(
        whole_number(0, 1 << 40), 0, "tokens a day (UTC) of such an address", default_text="0 (no limit)"
    )
    anonymous_concurrent_requests: int = _setting(
        whole_number(0, 10_000), 32, "requests to the model at the same time from such an address; 0 sets no limit"
    )
    limit_loopback: bool = _setting(
        YES_OR_NO, False, "true limits requests without a key from this machine's own addresses too"
    )
    rate_limit_storage_url: str | None = _setting(
        REDIS_URL,
        None,
        "a Redis in which several API processes count what is used a minute together",
        default_text="each process counts in memory",
        secret=True,
    )
    rate_limit_fail: str = _setting(
        choice("open", "closed"),
        "open",
        "while that Redis is away: open lets each process count by itself, closed answers 503",
    )
    max_request_bytes: int = _setting(
        whole_number(1024, 1 << 30), 20 << 20, "largest request body", default_text="20971520 (20 MiB)"
    )
    allow_image_urls: bool = _setting(
        YES_OR_NO, False, "fetch the http and https images that requests name, from public addresses only"
    )
    max_held_bytes: int = _setting(
        whole_number(1 << 20, 1 << 40),
        128 << 20,
        "most bytes of request bodies held at a time over all connections, one largest body at least; beyond, "
        "large and slow ones get 503",
        default_text="134217728 (128 MiB)",
    )
    max_connections: int = _setting(
        whole_number(16, 100_000), 1000, "most open connections; beyond, those without a request are closed"
    )
    max_connections_per_address: int = _setting(
        whole_number(0, 100_000),
        200,
        "most open connections of one address (IPv6: of one /64 network) beyond loopback; 0 is no bound",
    )
    max_queued_requests: int = _setting(
        whole_number(1, 100_000), 512, "most requests that wait for a thread; beyond, they get 503 overloaded"
    )
    header_seconds: float = _setting(seconds(1, 3600), 20.0, "how long a client may take to send the head of a request")
    body_bytes_per_second: int = _setting(
        whole_number(0, 1 << 30),
        1024,
        "least speed at which a request body must arrive, over 10 s; 0 lets it stand still",
    )
    keep_alive_seconds: float = _setting(
        seconds(1, 86400), 120.0, "how long an open connection may wait for its next request"
    )
    send_seconds: float = _setting(
        seconds(1, 86400), 60.0, "how long a client may take nothing of an answer that waits for it"
    )
    model_path: Path | None = _setting(
        PATH, None, "GGUF file to serve", default_text="demo model (SmolLM2-135M-Instruct)"
    )
    model_alias: str | None = _setting(
        ALIASES, None, "model ids that clients see, separated by commas", default_text="from the file's name"
    )
    llama_server_bin: Path | None = _setting(
        PATH, None, "the llama-server program to run", default_text="found on PATH, else the bundled engine"
    )
    model_server_host: str = _setting(
        MODEL_HOST, "127.0.0.1", "address of the supervised model server; unix is a socket in DATA_DIR, and no port"
    )
    model_server_port: int = _setting(whole_number(1, 65535), 8081, "port of the supervised model server")
    model_server_url: str | None = _setting(
        SERVER_URL, None, "a model server that someone else runs; nothing is supervised then", default_text="none"
    )
    model_server_api_key: str | None = _setting(
        SERVER_KEY,
        None,
        "API key of the model server",
        default_text="none with MODEL_SERVER_URL, else a random one for each start",
        secret=True,
    )
    embedding_model_path: Path | None = _setting(
        PATH, None, "GGUF file of an embedding model or a reranker, served beside the chat model", default_text="none"
    )
    embedding_model_alias: str | None = _setting(
        ALIASES, None, "ids of that model that clients see, separated by commas", default_text="from the file's name"
    )
    embedding_server_host: str = _setting(
        MODEL_HOST, "127.0.0.1", "address of the supervised embedding server; unix as for MODEL_SERVER_HOST"
    )
    embedding_server_port: int = _setting(whole_number(1, 65535), 8082, "port of the supervised embedding server")
    embedding_context_size: int = _setting(
        whole_number(0, 1 << 20),
        2048,
        "longest input of the embedding server in tokens, where its model takes as many; 0 is as many as it takes",
    )
    model_wait_seconds: float = _setting(
        seconds(0, 3600), 30.0, "how long a request waits for a model server that is loading or restarting"
    )
    model_connect_seconds: float = _setting(seconds(0.1, 60), 5.0, "longest wait for a connection to the model server")
    model_read_seconds: float = _setting(
        seconds(1, 86400),
        600.0,
        "longest silence of the model server while it answers (prompt processing included)",
    )
    normalize_roles: str = _setting(
        choice("auto", "off"),
        "auto",
        "auto fits the roles of a chat to a template that would refuse them; off never does",
    )
    session_history: bool = _setting(
        YES_OR_NO,
        False,
        "put what was said in a session before each chat request on it, unless it says use_history: false",
    )
    session_headers: tuple[str, ...] | None = _setting(
        HEADER_NAMES,
        None,
        "further headers in which clients name their session, separated by commas; they come before the known ones",
        default_text="none",
    )
    gpu_layers: str = _setting(GPU_LAYERS, "auto", "layers offloaded to the GPU: a number, auto or all")
    context_size: int = _setting(
        whole_number(0, 1 << 24),
        0,
        "context in tokens, shared by the slots: 8192 over PARALLEL=4 is 2048 a request; 0 gives each the model's own",
        default_text="0 (the model's own)",
    )
    batch_size: int = _setting(whole_number(1, 1 << 20), 2048, "tokens processed together while reading a prompt")
    threads: int = _setting(
        whole_number(1, 1024), _physical_cores(), "CPU threads of the model server", default_text="physical cores"
    )
    parallel: int = _setting(whole_number(1, 256), 4, "slots: requests generated at the same time")
    max_output_tokens: int = _setting(
        whole_number(0, 1 << 24),
        0,
        "most tokens of one answer; requests that ask for more, or for no number, get so many",
        default_text="0 (the context)",
    )
    pass_unknown_fields: bool = _setting(
        YES_OR_NO, False, "pass fields of requests on that the model server is not known to take; else they are dropped"
    )
    max_restarts: int = _setting(
        whole_number(0, 1000),
        10,
        "restarts of a crashing model server within ten minutes before it is given up",
    )
    load_seconds: float = _setting(
        seconds(1, 86400), 600.0, "longest silence of a model server that loads its model; what it prints counts"
    )
    hang_seconds: float = _setting(
        seconds(1, 86400), 60.0, "how long a busy model server may stand still, or not answer, until it is restarted"
    )
    log_level: str = _setting(
        choice("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        "DEBUG also shows llama.cpp's own log, without words of requests",
    )
    data_dir: Path = _setting(PATH, Path("var"), "journal, logs, run files and embedded data", default_text="./var")
    store_content: bool = _setting(YES_OR_NO, True, "false keeps usage figures but no text")
    store_attachment_bytes: int = _setting(
        whole_number(0, 1 << 30),
        1 << 20,
        "largest image, sound or file (as base64) that is kept; of larger ones their hash and length are",
        default_text="1048576 (1 MiB)",
    )
    recording_required: bool = _setting(
        YES_OR_NO, False, "true answers 503 rather than generate what the disk does not let us record"
    )
    retention_days: int = _setting(
        whole_number(0, 36500), 0, "days that conversations and usage rows are kept", default_text="0 (for ever)"
    )
    cache_seconds: float = _setting(
        seconds(0, 86400),
        0.0,
        "how long an answer is given again to identical requests with temperature 0 or a seed; 0 keeps none",
    )
    cache_bytes: int = _setting(
        whole_number(1 << 16, 1 << 40),
        64 << 20,
        "most bytes of such answers in memory",
        default_text="67108864 (64 MiB)",
    )
    cache_storage_url: str | None = _setting(
        REDIS_URL,
        None,
        "a Redis that keeps these answers for several API processes",
        default_text="the memory of each process",
        secret=True,
    )
    slot_save_seconds: float = _setting(
        seconds(0, 86400),
        300.0,
        "how often the caches of the busiest conversations are saved for the next start; 0 saves none",
    )
    slot_save_bytes: int = _setting(
        whole_number(0, 1 << 50), 4 << 30, "most bytes of saved caches", default_text="4294967296 (4 GiB)"
    )
    shutdown_seconds: float = _setting(
        seconds(0, 3600), 10.0, "how long running requests may finish when the server stops"
    )

    def __post_init__(self) -> None:
        # Absolute, so that a process that changes its directory still finds its data.
        object.__setattr__(self, "data_dir", self.data_dir.absolute())
        self._place_socket("model_server_host", "model-server")
        self._place_socket("embedding_server_host", "embedding-server")
        if self.session_history and not self.store_content:
            raise SettingError(
                "SESSION_HISTORY: true is not allowed while STORE_CONTENT is false: nothing is kept then."
            )

    def _place_socket(self, host_setting: str, server_name: str) -> None:
        """Replace ``unix`` by the path of the socket. Raises SettingError for one that cannot be an address.

        llama.cpp takes a comma for the end of an address (``--host``, common/arg.cpp).
        """
        if getattr(self, host_setting) != UNIX:
            return
        path = str(self.data_dir / "run" / f"{server_name}.sock")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH or "," in path:
            raise SettingError(
                f"{host_setting.upper()}: the path of the socket, '{path}', may have {MAX_SOCKET_PATH} bytes and no "
                "comma; choose another DATA_DIR, or an address."
            )
        object.__setattr__(self, host_setting, path)

    @property
    def model_server_socket(self) -> str | None:
        """The path of the supervised model server's Unix socket, or None where it listens on a port."""
        return self.model_server_host if self.supervised and os.sep in self.model_server_host else None

    @property
    def model_server_base_url(self) -> str:
        """The base URL of the model server, without a trailing slash. Over a Unix socket the host means nothing."""
        if self.model_server_socket is not None:
            return "http://localhost"
        return self.model_server_url or url_of(self.model_server_host, self.model_server_port)

    @property
    def supervised(self) -> bool:
        """Whether our supervisor runs the model server of the chat model."""
        return self.model_server_url is None

    @property
    def supervises_any(self) -> bool:
        """Whether our supervisor runs any model server."""
        return self.supervised or self.embedding_model_path is not None


def setting_fields() -> list[tuple[str, Field[Any]]]:
    """Return every setting as (environment variable, declaration), in the order of declaration."""
    return [(each.name.upper(), each) for each in fields(Settings)]


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the settings from a mapping of variables. Raises SettingError for a value not allowed."""
    texts = {name: environment.get(name, "").strip() for name, _ in setting_fields()}
    values = {each.name: _read(name, each, texts[name]) for name, each in setting_fields() if texts[name]}
    return Settings(**values)


def _read(name: str, declaration: Field[Any], text: str) -> Any:
    kind: Kind[Any] = declaration.metadata["kind"]
    try:
        return kind.read(text)
    except ValueError as error:
        value = "its value" if declaration.metadata["secret"] else f"'{text}'"
        raise SettingError(f"{name}: {value} is not allowed; give {kind.allowed}.") from error


def load_settings() -> Settings:
    """Read ``.env`` into the environment, which wins, then the settings. Raises SettingError."""
    read_dotenv()
    return settings_from(os.environ)


def read_dotenv() -> None:
    """Read ``.env`` into the environment, which wins. Raises SettingError where it is there and cannot be read."""
    try:
        load_dotenv(Path.cwd() / ".env")
    except UnicodeDecodeError as error:
        raise SettingError(f"'{Path.cwd() / '.env'}' cannot be read: it is not UTF-8.") from error
    except OSError as error:
        raise SettingError(f"'{Path.cwd() / '.env'}' cannot be read: {error.strerror}.") from error
