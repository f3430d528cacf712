"""Which model servers are ours: model, address, flags, file names.

What the files of our model servers are called: the main one's have plain names, another's begin with its own.

The model servers of our own: which model each serves, where, with which flags, and what its files are called.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mistral_api.model_files.gguf import ranking_requested, read_pooling
from mistral_api.settings import Settings

MAIN_SERVER, EMBEDDING_SERVER = "model-server", "embedding-server"


def server_file_name(server_name: str, file_name: str) -> str:
    """The name of a server's own copy of what the main server calls ``name``."""
    return file_name if server_name == MAIN_SERVER else f"{server_name}-{file_name}"


_VARIABLE = "LLAMA_ARG_"
# For an embedding model whose file does not say how much it takes, where the setting leaves it to the model.
DEFAULT_EMBEDDING_CONTEXT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One model server that we start and keep; everything in this package works on one of these.

    ``settings``: those of this server: the model, address, context and batch in them are its own. ``path_setting``
    and ``port_setting``: what the operator calls two of them. ``flags``: what its command line says besides.
    ``whole_inputs``: an input is computed at once, however long. ``ranks``: it gives scores, no vectors or text; None
    where its file cannot be read. ``variables``: llama.cpp's variables that reach it begin with this.
    ``taken_port``: another server's of ours.
    """

    name: str
    settings: Settings
    path_setting: str
    port_setting: str
    flags: tuple[str, ...] = ()
    whole_input_batches: bool = False
    is_reranker: bool | None = False
    variable_prefix: str = _VARIABLE
    taken_port: int | None = None

    @property
    def label(self) -> str:
        """What it is called in a log."""
        return self.name.replace("-", " ")

    def environment(self) -> dict[str, str]:
        """The environment of its process: of llama.cpp's variables those that are meant for it."""
        return _environment(self.variable_prefix)


def _environment(prefix: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(_VARIABLE)}
    own = {
        _VARIABLE + name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)
    }
    return others | own


def main_server_spec(settings: Settings) -> ServerSpec:
    """The server of MODEL_PATH."""
    return ServerSpec(
        name=MAIN_SERVER,
        settings=settings,
        path_setting="MODEL_PATH",
        port_setting="MODEL_SERVER_PORT",
        is_reranker=ranking_requested(os.environ),
    )


def embedding_server_spec(settings: Settings) -> ServerSpec | None:
    """The server of EMBEDDING_MODEL_PATH; None where that is not set.

    Its slots are as many as the main server's, each with room for the longest input, and so is its batch: most models
    see all of a text at once. The main server's LLAMA_ARG_* (a projector, adapters) are none of its business.
    """
    path = settings.embedding_model_path
    if path is None:
        return None
    variables = f"EMBEDDING_{_VARIABLE}"
    pooling = read_pooling(path, _environment(variables))
    context = _context(settings.embedding_context_size, pooling.context_size)
    own = replace(
        settings,
        model_path=path,
        model_alias=settings.embedding_model_alias,
        model_server_host=settings.embedding_server_host,
        model_server_port=settings.embedding_server_port,
        model_server_url=None,
        context_size=context * settings.parallel,
        batch_size=context,
        slot_save_seconds=0.0,  # it has no conversations
    )
    return ServerSpec(
        name=EMBEDDING_SERVER,
        settings=own,
        path_setting="EMBEDDING_MODEL_PATH",
        port_setting="EMBEDDING_SERVER_PORT",
        flags=("--embeddings", *pooling.flags, "-ub", str(context)),
        whole_input_batches=True,
        is_reranker=pooling.is_reranker,
        variable_prefix=variables,
        taken_port=settings.model_server_port if settings.supervised else None,
    )


def server_specs(settings: Settings) -> list[ServerSpec]:
    """Every model server that is ours to run, the main one first."""
    main = main_server_spec(settings) if settings.supervised else None
    return [each for each in (main, embedding_server_spec(settings)) if each is not None]


def _context(asked: int, own: int | None) -> int:
    if not own:
        return asked or DEFAULT_EMBEDDING_CONTEXT
    return min(asked or own, own)
