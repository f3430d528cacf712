"""llama.cpp's switches in our environment: which model server gets them, and which have no effect there.

They are variables that begin with ``LLAMA_ARG_``, or for the embedding server with ``EMBEDDING_LLAMA_ARG_``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mistral_api.control.server_environment import EMBEDDING_PREFIX
from mistral_api.control.status import BUNDLED
from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.switches.left_out import NO_TLS
from mistral_api.embedded.engine.variables import VARIABLES, knows_variable, why_without_effect

# Switches that a setting of ours decides: the supervisor gives the flag, and a flag wins over its variable.
_DECIDED: Final = {
    "MODEL": "MODEL_PATH",
    "HOST": "MODEL_SERVER_HOST",
    "PORT": "MODEL_SERVER_PORT",
    "N_GPU_LAYERS": "GPU_LAYERS",
    "CTX_SIZE": "CONTEXT_SIZE",
    "BATCH": "BATCH_SIZE",
    "THREADS": "THREADS",
    "N_PARALLEL": "PARALLEL",
    "ALIAS": "MODEL_ALIAS",
    "THREADS_HTTP": "API_THREADS",
    "SLOT_SAVE_PATH": "SLOT_SAVE_SECONDS",
    "ENDPOINT_METRICS": "the supervisor",
    "ENDPOINT_SLOTS": "the supervisor",
}
_DECIDED_FOR_EMBEDDINGS: Final = _DECIDED | {
    "MODEL": "EMBEDDING_MODEL_PATH",
    "HOST": "EMBEDDING_SERVER_HOST",
    "PORT": "EMBEDDING_SERVER_PORT",
    "CTX_SIZE": "EMBEDDING_CONTEXT_SIZE",
    "BATCH": "EMBEDDING_CONTEXT_SIZE",
    "UBATCH": "EMBEDDING_CONTEXT_SIZE",
    "ALIAS": "EMBEDDING_MODEL_ALIAS",
    "EMBEDDINGS": "EMBEDDING_MODEL_PATH",
}
# What no model server that we start may be told: neither our requests nor our probes would reach it.
_REFUSED: Final = {
    "SSL_KEY_FILE": NO_TLS,
    "SSL_CERT_FILE": NO_TLS,
    "API_PREFIX": "it is reached by the API alone, which knows its paths",
}
# A llama-server may have switches that are newer than our list: there only a slip of the keyboard is one (difflib).
_SLIP: Final = 0.94


@dataclass(frozen=True, slots=True)
class SwitchVariable:
    """A variable of llama.cpp's in our environment, and why it has no effect; None where it has one."""

    name: str
    value: str
    why_without_effect: str | None


def switch_variables(environment: Mapping[str, str], *, bundled: bool) -> list[SwitchVariable]:
    """Return llama.cpp's variables, sorted. ``bundled``: whether the bundled engine serves."""
    return [
        SwitchVariable(name, value, _why_without_effect(name, value, bundled=bundled))
        for name, value in sorted(environment.items())
        if name.startswith((LLAMA_PREFIX, EMBEDDING_PREFIX))
    ]


def sentence_of_switches(variables: Iterable[SwitchVariable]) -> str | None:
    """Return one line for the operator about those that have no effect, or None where all have one."""
    idle = [f"{each.name} ({each.why_without_effect})" for each in variables if each.why_without_effect]
    return f"Switches of llama.cpp without effect: {'; '.join(idle)}." if idle else None


def switches_in_effect(environment: Mapping[str, str], prefix: str, engine: str) -> list[str]:
    """Return the names of one server's variables, by its prefix, that reach its engine: one may be why it fails."""
    variables = switch_variables(environment, bundled=engine == BUNDLED)
    return [each.name for each in variables if each.name.startswith(prefix) and each.why_without_effect is None]


def own_names(sentence: str, prefix: str) -> str:
    """Return what an engine says of its variables with the names that they have in our environment."""
    return re.sub(rf"\b{LLAMA_PREFIX}", prefix, sentence)


def refused_switches(environment: Mapping[str, str], prefix: str) -> list[str]:
    """Return a sentence for each variable of one server's, by its prefix, that keeps that server from being started.

    An empty one says nothing, as elsewhere.
    """
    return [
        f"{prefix}{switch} is not for a model server that is started here: {reason}."
        for switch, reason in _REFUSED.items()
        if environment.get(prefix + switch, "").strip()
    ]


def _why_without_effect(name: str, value: str, *, bundled: bool) -> str | None:
    prefix, decided = LLAMA_PREFIX, _DECIDED
    if name.startswith(EMBEDDING_PREFIX):
        prefix, decided = EMBEDDING_PREFIX, _DECIDED_FOR_EMBEDDINGS
    switch = name.removeprefix(prefix)
    if switch in _REFUSED:
        return f"refused at the start: {_REFUSED[switch]}" if value.strip() else None
    if switch in decided:
        return f"{decided[switch]} decides that"
    reason = why_without_effect(LLAMA_PREFIX + switch) if bundled else _slip(LLAMA_PREFIX + switch)
    return reason and own_names(reason, prefix)


def _slip(variable: str) -> str | None:
    """Return which variable is meant by one that a llama-server hardly has; None where it may well have it."""
    nearest = None if knows_variable(variable) else difflib.get_close_matches(variable, VARIABLES, 1, _SLIP)
    return f"did you mean {nearest[0]}?" if nearest else None


def flags_without_variable(environment: Mapping[str, str]) -> list[str]:
    """Return the words of a command line for switches that llama.cpp itself has no variable for.

    The bundled engine reads ``LLAMA_ARG_LORA`` and the like. A llama-server gets the flags ``--lora`` instead.
    """
    words: list[str] = []
    for flag in FLAGS:
        text = environment.get(flag.variable)
        if flag.negative_variable is not None and flag.negative_variable in environment:
            text = "off"
        if flag.llama_variable is not None or text is None:
            continue
        if not flag.stands_alone:
            words += [flag.name, text]
        elif flag.read(text) == flag.read("on"):
            words.append(flag.name)
        elif flag.off:
            words.append(flag.off[0])
    return words
