"""What a saved cache depends on: another model, engine or setting, and it is worth nothing.

llama.cpp checks little of this itself when it reads a cache, and ends the process over some of what it finds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mistral_api.gguf_split import split_of

# Words on the command line that say how the server is reached and how fast it computes, not what.
_INDIFFERENT = ("--host", "--port", "--alias", "--threads-http", "-t", "-tb", "--slot-save-path")
# Whatever a file's name claims.
MOST_SHARDS = 1000


def fingerprint(command: Sequence[str], engine_version: str | None, environment: Mapping[str, str]) -> str:
    """SHA-256 over the command line, the engine's version, every ``LLAMA_ARG_*`` and every file that they name.

    A file counts by its path, size and time of change (the model, all its shards, the program itself, adapters,
    templates). Too careful is right here: it costs a cold start, the other mistake a wrong cache.
    """
    words = list(_significant(command))
    variables = sorted((name, value) for name, value in environment.items() if name.startswith("LLAMA_ARG_"))
    files = sorted({state for text in [*words, *(value for _, value in variables)] for state in _files(text)})
    known = {"command": words, "version": engine_version, "variables": variables, "files": files}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _significant(command: Sequence[str]) -> Iterable[str]:
    skip = False
    for word in command:
        if not skip and word not in _INDIFFERENT:
            yield word
        skip = not skip and word in _INDIFFERENT


def _files(text: str) -> Iterable[tuple[str, int, int]]:
    """Every file that a word names, alone or in a list (``a.gguf,b.gguf``, ``a.gguf:0.5``), with all its shards."""
    for part in {text, *re.split(r"[,:]", text)}:
        for path in _with_shards(Path(part)) if part else ():
            try:
                if path.is_file():
                    state = path.stat()
                    yield str(path), state.st_size, state.st_mtime_ns
            except (OSError, ValueError):
                continue  # no name of a file at all: too long, or with a NUL in it


def _with_shards(path: Path) -> Iterable[Path]:
    split = split_of(path.name)
    return [path.with_name(name) for name in split.names()[:MOST_SHARDS]] if split else [path]
