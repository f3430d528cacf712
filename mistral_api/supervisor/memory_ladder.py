"""The memory ladder: whether a server died for lack of memory, and what is tried next.

The steps go from the requested settings down to what fits: fewer GPU layers, then a smaller KV cache, then the CPU
alone.

A shortage is recognised by llama.cpp's own messages and the kernel's count of its kills. The messages stand in
llama.cpp's ``ggml/src/ggml-cuda/ggml-cuda.cu``, ``ggml-vulkan/ggml-vulkan-buffers.cpp``, ``ggml-alloc.c``,
``ggml-backend.cpp``, ``ggml.c`` and in ``src/llama-model.cpp``, ``llama-context.cpp``, ``llama-kv-cache.cpp``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from mistral_api.model_files.served_model import ModelInfo
from mistral_api.settings import Settings

SMALLER_CACHE = "q8_0"
CACHE_VARIABLES = ("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V")
# The share of the layers that a step keeps, and the share of all layers below which fewer are of no use.
LAYERS_FACTOR, MIN_LAYERS_SHARE = 2 / 3, 1 / 4
# How often the context is halved: on a card, and in the machine's own memory.
DEVICE_HALVINGS, HOST_HALVINGS = 1, 2

# The messages name a buffer's type: CUDA0, ROCm0, Vulkan1, SYCL0, Metal. The machine's own are CPU, CPU_REPACK and
# the pinned CUDA_Host.
_DEVICE_SHORTAGE = re.compile(
    r"cudaMalloc failed|CUDA error: out of memory|hipMalloc failed|ROCm error: out of memory"
    r"|OutOfDeviceMemory|Device memory allocation of size \d+ failed|exceeds device (buffer|memory)"
    r"|failed to allocate Metal buffer|ErrorOutOfMemory"
    r"|(unable|failed) to allocate (CUDA|ROCm|Vulkan|SYCL|Metal|MUSA|CANN|OpenCL)(?!_Host)\w* buffer"
)
_HOST_SHORTAGE = re.compile(
    r"(unable|failed) to allocate (CPU|CUDA_Host|ROCm_Host|Vulkan_Host|SYCL_Host)\w* buffer|insufficient memory"
    r"|failed to allocate +[\d.]+ MB|bad_alloc|[Cc]annot allocate memory"
    r"|ggml_vulkan: Memory allocation of size"
)
# These messages say that memory was short, but not which.
_SHORTAGE = re.compile(
    r"failed to allocate (buffer for (kv|rs) cache|compute (pp |tg )?buffers|graph|buffer of size|output buffer)"
)
# Failures that llama.cpp survives: memory that cannot be locked or pinned.
_HARMLESS = re.compile(r"mlock|warning:|WARNING:|^[\d.]+ W ")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class MemoryShortage(Enum):
    """Which memory was too small: the graphics card's, or the machine's."""

    DEVICE = "device memory"
    HOST = "memory of this machine"


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """The settings of one start that decide how much memory it needs. The field names are keys of a file.

    ``gpu_layers``: as ``-ngl`` takes it. ``context_size``: in tokens; 0 is the model's own. ``cache_type``: the type
    of the KV cache; None is llama.cpp's own choice.
    """

    gpu_layers: str
    context_size: int
    cache_type: str | None = None

    @property
    def uses_device(self) -> bool:
        """Whether a graphics card may hold a part of the model."""
        return self.gpu_layers != "0"

    def __str__(self) -> str:
        layers = f"{self.gpu_layers} GPU layers" if self.uses_device else "CPU only"
        context = f"context {self.context_size or 'of the model'}"
        return f"{layers}, {self.cache_type or 'default'} KV cache, {context}"


def requested_step(settings: Settings) -> MemoryStep:
    """Return the top of the ladder: what the settings ask for."""
    return MemoryStep(settings.gpu_layers, settings.context_size)


class MemoryLadder:
    """The steps for one model with one set of settings."""

    def __init__(self, settings: Settings, model: ModelInfo, environment: Mapping[str, str]) -> None:
        # A cache type that the operator has chosen may be smaller than ours.
        self._cache_type_is_chosen = any(name in environment for name in CACHE_VARIABLES)
        self._requested = requested_step(settings)
        # llama.cpp counts the output layer too.
        self._layers = (model.layers or 0) + 1
        # A context of 0 gives every slot the model's own.
        self._context = settings.context_size or (model.context or 0) * settings.parallel

    def next_step(self, step: MemoryStep, shortage: MemoryShortage) -> MemoryStep | None:
        """Return the step after one that did not fit; None at the end of the ladder."""
        if shortage is MemoryShortage.DEVICE and step.uses_device:
            return self._fewer_layers(step) or self._smaller_cache(step, DEVICE_HALVINGS) or self._cpu_only()
        return self._smaller_cache(step, HOST_HALVINGS)

    def _fewer_layers(self, step: MemoryStep) -> MemoryStep | None:
        # Once the cache has been made smaller, the layers stay.
        if step.cache_type is not None or step.context_size != self._requested.context_size:
            return None
        layers = min(int(step.gpu_layers), self._layers) if step.gpu_layers.isdigit() else self._layers
        fewer = int(layers * LAYERS_FACTOR)
        return replace(step, gpu_layers=str(fewer)) if fewer >= max(1.0, self._layers * MIN_LAYERS_SHARE) else None

    def _smaller_cache(self, step: MemoryStep, halvings: int) -> MemoryStep | None:
        if step.cache_type is None and not self._cache_type_is_chosen:
            return replace(step, cache_type=SMALLER_CACHE)
        half = (step.context_size or self._context) // 2
        return replace(step, context_size=half) if half and half >= self._context >> halvings else None

    def _cpu_only(self) -> MemoryStep:
        """Return a step without the card. The machine's own memory gets the requested cache and context again."""
        return replace(self._requested, gpu_layers="0")


def find_shortage(lines: Iterable[str], *, uses_device: bool) -> MemoryShortage | None:
    """Return the shortage that a server's output names, if it names one.

    ``uses_device`` decides where the output says only that memory was short.
    """
    text = "\n".join(line for line in lines if not _HARMLESS.search(line))
    if _DEVICE_SHORTAGE.search(text):
        return MemoryShortage.DEVICE
    if _HOST_SHORTAGE.search(text):
        return MemoryShortage.HOST
    if _SHORTAGE.search(text):
        return MemoryShortage.DEVICE if uses_device else MemoryShortage.HOST
    return None


def killed_for_memory(exit_code: int | None, kills_before: int | None) -> bool:
    """Return whether the kernel killed a process for lack of memory, and not a person.

    ``kills_before``: what :func:`count_oom_kills` returned while the process ran.
    """
    kills = count_oom_kills()
    if exit_code != -getattr(signal, "SIGKILL", 0) or kills is None or kills_before is None:
        return False
    return kills > kills_before


def count_oom_kills() -> int | None:
    """Return how many processes this kernel has killed for lack of memory (Linux, proc_vmstat(5)); None elsewhere."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None
