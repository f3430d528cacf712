"""Values that do not go together: what llama.cpp ends with an assertion for, or passes over without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mistral_api.embedded.engine.enumerations import CACHE_TYPE, FLASH_ATTENTION, SPECULATION
from mistral_api.embedded.engine.flag import BadFlag
from mistral_api.embedded.engine.values import FlagValue

# llama.cpp computes two tokens of a slot before the first request (common/common.cpp).
_LEAST_SLOT: Final = 2
_PLAIN_CACHES: Final = (CACHE_TYPE["f32"], CACHE_TYPE["f16"], CACHE_TYPE["bf16"])
_SMALL_MODEL: Final = ("speculative.draft.mparams.path", "--spec-draft-model")
_MOST_GUESSED, _LEAST_GUESSED = "speculative.draft.n_max", "speculative.draft.n_min"
_KINDS_WITH_MODEL: Final = ("draft-simple", "draft-eagle3", "draft-dflash", "draft-dspark")


def refuse_conflicts(values: Mapping[str, FlagValue]) -> None:
    """Raise BadFlag where values exclude each other."""
    _check_slots(values)
    _check_cache(values)
    _check_images(values)
    _check_speculation(values)


def _check_slots(values: Mapping[str, FlagValue]) -> None:
    context, slots, batch = (_number(values, name) for name in ("n_ctx", "n_parallel", "n_batch"))
    if context and context // (slots if slots and not values.get("kv_unified") else 1) < _LEAST_SLOT:
        raise BadFlag(f"--ctx-size {context} is too small: each of the --parallel slots needs {_LEAST_SLOT} tokens")
    if batch is not None and slots is not None and batch < slots:
        raise BadFlag(f"--batch-size {batch} is too small: each of {slots} slots (--parallel) has a token in a batch")


def _check_cache(values: Mapping[str, FlagValue]) -> None:
    kind = values.get("cache_type_v", _PLAIN_CACHES[0])
    if kind not in _PLAIN_CACHES and values.get("flash_attn_type") == FLASH_ATTENTION["off"]:
        raise BadFlag("--cache-type-v of fewer than 16 bits needs flash attention (--flash-attn on or auto)")


def _check_images(values: Mapping[str, FlagValue]) -> None:
    least, most = _number(values, "image_min_tokens"), _number(values, "image_max_tokens")
    if least is not None and most is not None and least > most:
        raise BadFlag(f"--image-min-tokens {least} is more than --image-max-tokens {most}")


def _check_speculation(values: Mapping[str, FlagValue]) -> None:
    kinds = values.get("speculative.types", [])
    path, flag = _SMALL_MODEL
    for word in _KINDS_WITH_MODEL:
        if isinstance(kinds, list) and SPECULATION[word] in kinds and path not in values:
            raise BadFlag(f"--spec-type {word} needs a small model ({flag})")
    most, least = _number(values, _MOST_GUESSED), _number(values, _LEAST_GUESSED)
    if most is not None and least is not None and least > most:
        raise BadFlag(f"--spec-draft-n-min {least} is more than --spec-draft-n-max {most}: nothing would be guessed")
    pretended = "speculative.synth_len" in values or "speculative.synth_rates" in values
    if pretended and kinds in ([], [SPECULATION["none"]]) and path not in values:
        raise BadFlag(f"--spec-synth-len and --spec-synth-rates need speculative decoding (--spec-type or {flag})")


def _number(values: Mapping[str, FlagValue], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) else None
