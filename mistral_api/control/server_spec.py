"""The model servers that we run ourselves: which model each one serves, where, with which flags.

There are at most two: the main server of MODEL_PATH, and the embedding server of EMBEDDING_MODEL_PATH. The name of a
server also names its files: the main server's files have plain names, another server's begin with its name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mistral_api.control.server_environment import (
    EMBEDDING_PREFIX,
    SLEEP_VARIABLE,
    llama_variables,
    server_environment,
)
from mistral_api.control.shared_cache import with_shared_cache
from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.model_files.companion_files import CompanionFile, companion_files
from mistral_api.model_files.gguf import ranking_requested, read_pooling
from mistral_api.settings import Settings

MAIN_SERVER, EMBEDDING_SERVER = "model-server", "embedding-server"
# The longest input of an embedding model whose file names no context, where the setting leaves it to the model.
DEFAULT_EMBEDDING_CONTEXT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One model server that we start and keep running. The whole supervisor works on one of these at a time.

    ``settings``: the settings of this server; their model, address, context and batch are its own.
    ``path_setting``, ``port_setting``: the names of the settings that an error message tells the operator to change.
    ``flags``: command line flags beyond those that the settings give.
    ``whole_input_batches``: whether one batch must hold a whole input, however long the input is.
    ``is_reranker``: whether it returns scores, not vectors or text; None where its file cannot be read.
    ``variable_prefix``: the beginning of the environment variables that reach it as ``LLAMA_ARG_*``.
    ``taken_port``: the port of our other model server, which it must not use.
    """

    name: str
    settings: Settings
    path_setting: str
    port_setting: str
    flags: tuple[str, ...] = ()
    whole_input_batches: bool = False
    is_reranker: bool | None = False
    variable_prefix: str = LLAMA_PREFIX
    taken_port: int | None = None

    @property
    def host_setting(self) -> str:
        """The name of the setting of its address."""
        return self.port_setting.replace("_PORT", "_HOST")

    @property
    def label(self) -> str:
        """The server's name in log lines."""
        return self.name.replace("-", " ")

    def llama_variable(self, name: str) -> str:
        """Return the value of one of llama.cpp's variables that is meant for this server, or nothing."""
        return os.environ.get(self.variable_prefix + name.removeprefix(LLAMA_PREFIX), "").strip()

    @property
    def sleep_seconds(self) -> float | None:
        """The idle seconds after which it unloads its model until the next request; None where it never does."""
        try:
            seconds = float(self.llama_variable(SLEEP_VARIABLE))
        except ValueError:  # it is not set, or the model server will refuse it
            return None
        return seconds if seconds >= 0 else None

    @property
    def companion_files(self) -> list[CompanionFile]:
        """The files that are loaded beside the model."""
        return companion_files(os.environ, self.variable_prefix)

    def environment(self) -> dict[str, str]:
        """Return the environment of its process, without its key: no setting of ours, and what it needs of the rest.

        Of llama.cpp's variables it has only those meant for this server. The slots of the main server share one cache;
        each of an embedding server has room for the longest input.
        """
        environment = server_environment(os.environ, self.variable_prefix)
        shares = self.name == MAIN_SERVER and self.settings.parallel > 1
        return with_shared_cache(environment) if shares else environment


def server_specs(settings: Settings) -> list[ServerSpec]:
    """Return every model server that we run ourselves, the main one first."""
    main = main_server_spec(settings) if settings.supervised else None
    return [spec for spec in (main, embedding_server_spec(settings)) if spec is not None]


def main_server_spec(settings: Settings) -> ServerSpec:
    """Return the server of MODEL_PATH."""
    return ServerSpec(
        name=MAIN_SERVER,
        settings=settings,
        path_setting="MODEL_PATH",
        port_setting="MODEL_SERVER_PORT",
        is_reranker=ranking_requested(os.environ),
    )


def embedding_server_spec(settings: Settings) -> ServerSpec | None:
    """Return the server of EMBEDDING_MODEL_PATH, or None where that is not set.

    It has as many slots as the main server. Each slot has room for the longest input, and so has a batch, because
    most embedding models need all of a text at once. The main server's LLAMA_ARG_* variables (a projector, adapters)
    do not reach it.
    """
    path = settings.embedding_model_path
    if path is None:
        return None
    pooling = read_pooling(path, llama_variables(os.environ, EMBEDDING_PREFIX))
    longest_input = _longest_input(settings.embedding_context_size, pooling.context_size)
    own = replace(
        settings,
        model_path=path,
        model_alias=settings.embedding_model_alias,
        model_server_host=settings.embedding_server_host,
        model_server_port=settings.embedding_server_port,
        model_server_url=None,
        model_server_api_key=None,
        context_size=longest_input * settings.parallel,
        batch_size=longest_input,
        slot_save_seconds=0.0,  # it has no conversations
        prompt_cache_mib=0,
    )
    return ServerSpec(
        name=EMBEDDING_SERVER,
        settings=own,
        path_setting="EMBEDDING_MODEL_PATH",
        port_setting="EMBEDDING_SERVER_PORT",
        flags=("--embeddings", *pooling.flags, "-ub", str(longest_input)),
        whole_input_batches=True,
        is_reranker=pooling.is_reranker,
        variable_prefix=EMBEDDING_PREFIX,
        taken_port=settings.model_server_port if settings.supervised else None,
    )


def server_file_name(server_name: str, file_name: str) -> str:
    """Return what a server calls its own copy of the file or folder that the main server calls ``file_name``."""
    return file_name if server_name == MAIN_SERVER else f"{server_name}-{file_name}"


def _longest_input(requested: int, of_model: int | None) -> int:
    """Return the tokens of the longest input: what the setting says (0: the model's own), within the model's limit."""
    if not of_model:
        return requested or DEFAULT_EMBEDDING_CONTEXT
    return min(requested or of_model, of_model)
