"""Every setting, declared once with its kind, default and meaning.

A setting's name is its environment variable. Its kind (:mod:`mistral_api.setting_kinds`) reads its text and says in
words what it allows. The table in docs/settings.md and ``.env.example`` are checked against this module.
"""

from __future__ import annotations

import os
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import psutil

from mistral_api.setting_kinds import (
    ALIASES,
    DATABASE_URL,
    GPU_LAYERS,
    HEADER_NAMES,
    HOST,
    HOST_NAMES,
    INDEX_URL,
    MODEL_HOST,
    NETWORKS,
    ORIGINS,
    PATH,
    PROGRAM,
    REDIS_URL,
    SCHEMA_NAME,
    SECRET,
    SERVER_KEY,
    SERVER_URL,
    UNIX,
    YES_OR_NO,
    IPNetwork,
    Kind,
    choice,
    seconds,
    whole_number,
)
from mistral_api.settings.errors import SettingError
from mistral_api.system.addresses import url_of
from mistral_api.system.log_file import FILE_BYTES
from mistral_api.system.log_format import FORMATS
from mistral_api.system.logs import LogOptions
from mistral_api.system.project import project_folder

# The longest path of a Unix socket (unix(7): 107 bytes on Linux; 103 on macOS).
MAX_SOCKET_PATH = 103

T = TypeVar("T")
D = TypeVar("D")


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
    slow_query_ms: int = _setting(
        whole_number(0, 3_600_000),
        500,
        "statements to PostgreSQL that take longer are logged without their values, one a minute; 0 logs none",
    )
    api_host: str = _setting(HOST, "127.0.0.1", "address the API listens on")
    api_port: int = _setting(whole_number(0, 65535), 9000, "port the API listens on; 0 takes a free one")
    api_processes: int = _setting(
        whole_number(1, 64), 1, "processes of the API that share the port, for more cores; on Windows 1"
    )
    api_threads: int = _setting(
        whole_number(1, 1024), 64, "threads that prepare generations: so many may wait for PostgreSQL or Redis at once"
    )
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
        "a Redis in which several servers count what is used a minute together",
        default_text="each server counts in memory",
        secret=True,
    )
    rate_limit_fail: str = _setting(
        choice("open", "closed"),
        "open",
        "while that Redis, or the first API process, is away: open lets each process count alone, closed answers 503",
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
        whole_number(16, 100_000), 8192, "most open connections; beyond, those without a request are closed"
    )
    max_connections_per_address: int = _setting(
        whole_number(0, 100_000),
        200,
        "most open connections of one address (IPv6: of one /64 network) beyond loopback; 0 is no bound",
    )
    max_queued_requests: int = _setting(
        whole_number(1, 100_000), 4096, "most requests that wait for a thread; beyond, they get 503 overloaded"
    )
    max_waiting: int = _setting(
        whole_number(1, 100_000),
        4096,
        "most generations that wait for a slot of the model server, in all API processes; beyond, 503 overloaded",
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
    any_model: bool = _setting(
        YES_OR_NO,
        False,
        "the one model of a server answers whatever model a request names, and says its own name (not in Ollama's API)",
    )
    llama_server_bin: Path | None = _setting(
        PROGRAM, None, "the llama-server program to run", default_text="found on PATH, else the bundled engine"
    )
    engine_index_url: str = _setting(
        INDEX_URL,
        "https://xorbitsai.github.io/xllamacpp/whl",
        "where builds of the bundled engine for graphics cards come from, with a folder for each variant",
        secret=True,
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
        "tokens that all requests share; one alone may have them all; 0 is the model's own, once",
        default_text="0 (the model's own)",
    )
    batch_size: int = _setting(whole_number(1, 1 << 20), 2048, "tokens processed together while reading a prompt")
    threads: int = _setting(
        whole_number(1, 1024), _physical_cores(), "CPU threads of the model server", default_text="physical cores"
    )
    parallel: int = _setting(
        whole_number(1, 256), 4, "slots: requests generated at the same time, as far as they fit into the context"
    )
    prompt_cache_mib: int | None = _setting(
        whole_number(0, 1 << 24),
        None,
        "most MiB of main memory in which the model server keeps prompts for later requests; 0 keeps none",
        default_text="a quarter of what is free beside the model, 8192 at most; 0 with several owners",
    )
    max_output_tokens: int = _setting(
        whole_number(0, 1 << 24),
        0,
        "most tokens of one answer; requests that ask for more, or for no number, get so many",
        default_text="0 (what fits into the context)",
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
    log_format: str = _setting(
        choice(*FORMATS),
        "text",
        "json writes the log as one JSON object a line, with the values of a request as fields",
    )
    log_file_bytes: int = _setting(
        whole_number(0, 1 << 40),
        FILE_BYTES,
        "size at which a log file in DATA_DIR/logs is set aside, of which five are kept; 0 writes none",
        default_text="10485760 (10 MiB)",
    )
    data_dir: Path = _setting(PATH, Path("var"), "journal, logs, run files and embedded data", default_text="./var")
    store_content: bool = _setting(YES_OR_NO, True, "false keeps usage figures but no text")
    store_false: str = _setting(
        choice("nothing", "conversation"),
        "nothing",
        "what is kept of a request with `store: false`: nothing but its figures, or its conversation too, which its "
        "owner finds among the others",
    )
    store_attachment_bytes: int = _setting(
        whole_number(0, 1 << 30),
        1 << 20,
        "largest image, sound or file (as base64) that is kept; of larger ones their hash and length are",
        default_text="1048576 (1 MiB)",
    )
    recording_required: bool = _setting(
        YES_OR_NO, False, "true answers 503 rather than generate what the disk does not let us record"
    )
    journal_sync: str = _setting(
        choice("normal", "full"),
        "normal",
        "full has each request and answer on the disk (fsync) before its client sees the end; with normal a power "
        "failure may cost the last half second, and the end of the process nothing",
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
        "a Redis that keeps these answers for several servers",
        default_text="the memory of the server",
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
        # Absolute, so that every command finds the same data, wherever it is started.
        object.__setattr__(self, "data_dir", project_folder() / self.data_dir)
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
    def log_options(self) -> LogOptions:
        """How the processes of the server log."""
        return LogOptions(self.log_level, self.log_format, self.data_dir / "logs", self.log_file_bytes)

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
