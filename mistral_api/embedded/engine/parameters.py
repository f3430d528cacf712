"""Values by attribute become llama.cpp's parameters: xllamacpp's ``CommonParams``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mistral_api.embedded.engine.enumerations import Member
from mistral_api.embedded.engine.flag import BadFlag
from mistral_api.embedded.engine.library import xllamacpp
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.values import FlagValue, LoraAdapter

# On a CPU a batch of prompt tokens takes seconds, and llama.cpp looks for abandoned requests only between
# batches. Steps of this size cost about a tenth of the speed there and free such a slot within a second.
LARGEST_CPU_BATCH: Final = 64

_SAMPLING_BIT: Final = "COMMON_PARAMS_SAMPLING_CONFIG_"
# The values that win over those that a model's file recommends, and what their bits are called (common/common.h).
_SAMPLING_BITS: Final = {
    "samplers": "SAMPLERS",
    "top_k": "TOP_K",
    "top_p": "TOP_P",
    "min_p": "MIN_P",
    "xtc_probability": "XTC_PROBABILITY",
    "xtc_threshold": "XTC_THRESHOLD",
    "temp": "TEMP",
    "penalty_last_n": "PENALTY_LAST_N",
    "penalty_repeat": "PENALTY_REPEAT",
    "mirostat": "MIROSTAT",
    "mirostat_tau": "MIROSTAT_TAU",
    "mirostat_eta": "MIROSTAT_ETA",
}
# Whose processors are those of whom, where nothing else is said: prompts take those of generation, and the small model
# those of the large one (common/arg.cpp).
_SAME_PROCESSORS: Final = (
    ("cpuparams_batch", "cpuparams"),
    ("speculative.draft.cpuparams", "cpuparams"),
    ("speculative.draft.cpuparams_batch", "cpuparams_batch"),
)
_PROCESSOR_FIELDS: Final = ("n_threads", "cpumask", "strict_cpu", "priority", "poll")


def common_params(values: Mapping[str, FlagValue]) -> xllamacpp.CommonParams:
    """Return llama.cpp's parameters with these values set, by attribute path. Raises BadFlag."""
    params = xllamacpp.CommonParams()
    params.endpoint_slots = True
    # As llama-server does: templates that can keep earlier reasoning do.
    params.default_template_kwargs = {"preserve_reasoning": "true"}
    for path, value in _with_processors(values).items():
        _set(params, path, value)
    # An embedding model computes all tokens of a text at once, and every batch needs a token of each slot.
    if not params.embedding and not devices():
        params.n_batch = min(params.n_batch, max(LARGEST_CPU_BATCH, params.n_parallel))
    return params


def devices() -> list[dict[str, Any]]:
    """Return what the build computes on beside the CPU."""
    cpu = (
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU,
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_ACCEL,
    )
    return [device for device in xllamacpp.get_device_info() if device["type"] not in cpu]


def _with_processors(values: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Add the processors of prompts and of the small model, where they have none of their own."""
    completed = dict(values)
    for follower, leader in _SAME_PROCESSORS:
        for field in _PROCESSOR_FIELDS:
            if f"{leader}.{field}" in completed:
                completed.setdefault(f"{follower}.{field}", completed[f"{leader}.{field}"])
    return completed


def _set(params: xllamacpp.CommonParams, path: str, value: FlagValue) -> None:
    *parents, name = path.split(".")
    target = params
    for parent in parents:
        target = getattr(target, parent)
    try:
        setattr(target, name, _native(value, getattr(target, name)))
    except (ValueError, OverflowError, AssertionError) as error:
        flags = " or ".join(flag.name for flag in FLAGS if path in flag.attributes)
        raise BadFlag(f"argument {flags}: {error or 'not allowed'}") from error
    if name == "cpumask":
        target.mask_valid = True
    if parents == ["sampling"] and name in _SAMPLING_BITS:
        bit = getattr(xllamacpp.common_params_sampling_config, _SAMPLING_BIT + _SAMPLING_BITS[name])
        params.sampling.user_sampling_config |= bit.value


def _native(value: FlagValue, default: object) -> object:
    """Return a value as xllamacpp takes it, where ``default`` is what the parameter holds."""
    if isinstance(value, Member):
        return getattr(getattr(xllamacpp, value.enumeration), value.name)
    if isinstance(value, frozenset) and isinstance(default, list):
        return [index in value for index in range(len(default))]
    if isinstance(value, dict) and isinstance(default, dict):
        return default | value
    return _native_list(value, default) if isinstance(value, list) else value


def _native_list(value: list[Any], default: object) -> object:
    if isinstance(default, str):
        return ",".join(value)
    if value and isinstance(value[0], LoraAdapter):
        return [xllamacpp.CommonAdapterLoraInfo(each.path, each.scale) for each in value]
    if isinstance(default, list) and value and isinstance(value[0], float) and default:
        return _filled(value, default)
    return [_native(each, None) for each in value]


def _filled(numbers: list[float], default: list[float]) -> list[float] | list[int]:
    """Return numbers for all devices that llama.cpp knows: one for all, or those given and then the default."""
    if len(numbers) > len(default):
        raise ValueError(f"llama.cpp knows at most {len(default)} devices")
    if isinstance(default[0], int):
        whole = [int(number) for number in numbers]
        return whole * len(default) if len(whole) == 1 else [*whole, *map(int, default[len(whole) :])]
    return [*numbers, *default[len(numbers) :]]
