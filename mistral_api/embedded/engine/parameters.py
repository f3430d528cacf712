"""From flag values to xllamacpp's CommonParams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xllamacpp

# On a CPU a batch of prompt tokens takes seconds, and llama.cpp looks for abandoned requests only between
# batches. Steps of this size cost about a tenth of the speed there and free such a slot within a second.
CPU_BATCH = 64

_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def parameters(values: Mapping[str, Any]) -> xllamacpp.CommonParams:
    """llama.cpp's parameters with these values set, by attribute path."""
    made = xllamacpp.CommonParams()
    made.endpoint_slots = True
    for path, value in _spelt_out(values).items():
        *parents, name = path.split(".")
        target = made
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, _native(name, value))
    if "timeout_read" in values:
        made.timeout_write = values["timeout_read"]
    # Of a text that is to become a vector all tokens are computed at once.
    if not made.embedding and not _has_gpu():
        made.n_batch = min(made.n_batch, CPU_BATCH)
    return made


def _spelt_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the flag ``--reranking`` is short for (common/arg.cpp)."""
    others = dict(values)
    if others.pop("reranking", False):
        others |= {"embedding": True, "pooling_type": "rank"}
    return others


def _native(name: str, value: Any) -> Any:
    """The enumeration member that a word stands for."""
    if name in ("cache_type_k", "cache_type_v"):
        return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value.upper()}")
    if name == "pooling_type":
        return getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{value.upper()}")
    if name == "flash_attn_type":
        return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[value]}")
    return value


def _has_gpu() -> bool:
    """Whether the build computes on anything but the CPU."""
    cpu = (
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU,
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_ACCEL,
    )
    return any(device["type"] not in cpu for device in xllamacpp.get_device_info())
