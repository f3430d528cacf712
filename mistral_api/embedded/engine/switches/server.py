"""Switches of the server: where it listens, who may ask, what it answers beside generations, what it logs."""

from __future__ import annotations

import json

from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.values import (
    LARGEST_INT,
    Attributes,
    read_file,
    read_folder,
    read_idle_seconds,
    read_lines,
    read_list,
    read_names,
    read_opposite,
    read_switch,
    read_text,
    whole,
)


def _read_origins(text: str) -> Attributes:
    return Attributes({"cors_origins": text, "cors_origins_explicit": True})


def _read_verbose(text: str) -> int:
    return LARGEST_INT if read_switch(text) else 3


def _read_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        raise ValueError("JSON") from None
    return text


def _read_json_file(path: str) -> str:
    return _read_json(read_file(path))


ADDRESS = FlagGroup(
    "Address and connections",
    (
        Flag(("--host",), ("hostnames",), read_list, "addresses to listen on, or a socket's path", "LLAMA_ARG_HOST"),
        Flag(("--port",), ("port",), whole(0, 65535), "port to listen on; 0 takes a free one", "LLAMA_ARG_PORT"),
        Flag(("--reuse-port",), ("reuse_port",), read_switch, "several servers on one port", "LLAMA_ARG_REUSE_PORT"),
        Flag(("--api-prefix",), ("api_prefix",), read_text, "what all paths begin with", "LLAMA_ARG_API_PREFIX"),
        Flag(
            ("-to", "--timeout"),
            ("timeout_read", "timeout_write"),
            whole(1),
            "seconds that reading or writing may stand still",
            "LLAMA_ARG_TIMEOUT",
        ),
        Flag(
            ("--threads-http",),
            ("n_threads_http",),
            whole(-1, 65536),
            "threads for connections; -1 as many as there are processors",
            "LLAMA_ARG_THREADS_HTTP",
        ),
        Flag(
            ("--sse-ping-interval",),
            ("sse_ping_interval",),
            whole(-1),
            "seconds between signs of life in a stream; -1 sends none",
            "LLAMA_ARG_SSE_PING_INTERVAL",
        ),
    ),
)

ACCESS = FlagGroup(
    "Keys and web pages",
    (
        Flag(
            ("--api-key",),
            ("api_keys",),
            read_list,
            "keys that may ask; a command line is seen by all, so use the variable or the file",
            "LLAMA_API_KEY",
        ),
        Flag(("--api-key-file",), ("api_keys",), read_lines, "file of keys, one a line", "LLAMA_ARG_API_KEY_FILE"),
        Flag(
            ("--cors-origins",),
            ("cors_origins", "cors_origins_explicit"),
            _read_origins,
            "web pages that may ask",
            "LLAMA_ARG_CORS_ORIGINS",
        ),
        Flag(("--cors-methods",), ("cors_methods",), read_text, "HTTP methods of web pages", "LLAMA_ARG_CORS_METHODS"),
        Flag(("--cors-headers",), ("cors_headers",), read_text, "HTTP headers of web pages", "LLAMA_ARG_CORS_HEADERS"),
        Flag(
            ("--cors-credentials",),
            ("cors_credentials",),
            read_switch,
            "web pages may send credentials",
            "LLAMA_ARG_CORS_CREDENTIALS",
            ("--no-cors-credentials",),
        ),
    ),
)

ENDPOINTS = FlagGroup(
    "What the server answers",
    (
        Flag(("-a", "--alias"), ("model_alias",), read_names, "names of the model, with commas", "LLAMA_ARG_ALIAS"),
        Flag(("--tags",), ("model_tags",), read_names, "labels of the model, for information", "LLAMA_ARG_TAGS"),
        Flag(("--metrics",), ("endpoint_metrics",), read_switch, "GET /metrics answers", "LLAMA_ARG_ENDPOINT_METRICS"),
        Flag(
            ("--slots",),
            ("endpoint_slots",),
            read_switch,
            "GET /slots answers",
            "LLAMA_ARG_ENDPOINT_SLOTS",
            ("--no-slots",),
        ),
        Flag(("--props",), ("endpoint_props",), read_switch, "POST /props may change", "LLAMA_ARG_ENDPOINT_PROPS"),
        Flag(
            ("--slot-save-path",),
            ("slot_save_path",),
            read_folder,
            "folder for the caches of slots",
            "LLAMA_ARG_SLOT_SAVE_PATH",
        ),
        Flag(
            ("--media-path",), ("media_path",), read_folder, "folder whose files a request may name by file:// address"
        ),
        Flag(("--path",), ("public_path",), read_folder, "folder of static files", "LLAMA_ARG_STATIC_PATH"),
        Flag(
            ("--webui", "--ui"),
            ("ui",),
            read_switch,
            "llama.cpp's own web pages",
            "LLAMA_ARG_UI",
            ("--no-webui", "--no-ui"),
        ),
        Flag(
            ("--webui-config", "--ui-config"),
            ("ui_config_json",),
            _read_json,
            "settings of those pages, as JSON",
            "LLAMA_ARG_UI_CONFIG",
        ),
        Flag(
            ("--webui-config-file", "--ui-config-file"),
            ("ui_config_json",),
            _read_json_file,
            "file of settings of those pages",
            "LLAMA_ARG_UI_CONFIG_FILE",
        ),
        Flag(
            ("--sleep-idle-seconds",),
            ("sleep_idle_seconds",),
            read_idle_seconds,
            "seconds without work after which the model is unloaded until the next request; -1 never",
        ),
    ),
)

LOG = FlagGroup(
    "Log",
    (
        Flag(
            ("-lv", "--verbosity", "--log-verbosity"),
            ("verbosity",),
            whole(),
            "0 answers to commands, 1 errors, 2 warnings, 3 what happens, 4 more of it, 5 everything",
            "LLAMA_ARG_LOG_VERBOSITY",
        ),
        Flag(("-v", "--log-verbose", "--verbose"), ("verbosity",), _read_verbose, "log everything", switch=True),
        Flag(
            ("--log-prompts-dir",), ("path_prompts_log_dir",), read_text, "folder that gets the text of every prompt"
        ),
        Flag(
            ("--perf",), ("no_perf", "sampling.no_perf"), read_opposite, "measure inside llama.cpp", "LLAMA_ARG_PERF",
            ("--no-perf",),
        ),
    ),
)  # fmt: skip
