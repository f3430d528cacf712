"""Memory shortage recognised; steps down to what fits.

Whether a server died for want of memory, and of which: read from llama.cpp's own messages and the kernel's count.

The messages stand in llama.cpp's ``ggml/src/ggml-cuda/ggml-cuda.cu``, ``ggml-vulkan/ggml-vulkan-buffers.cpp``,
``ggml-alloc.c``, ``ggml-backend.cpp``, ``ggml.c`` and in ``src/llama-model.cpp``, ``llama-context.cpp``,
``llama-kv-cache.cpp``.

The steps from what was asked for down to what fits: fewer layers, then a smaller KV cache, then the CPU alone.
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


class MemoryShortage(Enum):
    """Which memory was too small: the graphics card's, or the machine's."""

    DEVICE = "device memory"
    HOST = "memory of this machine"


# A buffer's type is named in the message: CUDA0, ROCm0, Vulkan1, SYCL0, Metal; the machine's own are CPU, CPU_REPACK
# and the pinned CUDA_Host.
_DEVICE = re.compile(
    r"cudaMalloc failed|CUDA error: out of memory|hipMalloc failed|ROCm error: out of memory"
    r"|OutOfDeviceMemory|Device memory allocation of size \d+ failed|exceeds device (buffer|memory)"
    r"|failed to allocate Metal buffer|ErrorOutOfMemory"
    r"|(unable|failed) to allocate (CUDA|ROCm|Vulkan|SYCL|Metal|MUSA|CANN|OpenCL)(?!_Host)\w* buffer"
)
_HOST = re.compile(
    r"(unable|failed) to allocate (CPU|CUDA_Host|ROCm_Host|Vulkan_Host|SYCL_Host)\w* buffer|insufficient memory"
    r"|failed to allocate +[\d.]+ MB|bad_alloc|[Cc]annot allocate memory"
    r"|ggml_vulkan: Memory allocation of size"
)
# Says that memory was short, but not which.
_EITHER = re.compile(
    r"failed to allocate (buffer for (kv|rs) cache|compute (pp |tg )?buffers|graph|buffer of size|output buffer)"
)
# What llama.cpp goes on without: memory that cannot be locked or pinned.
_GOT_OVER = re.compile(r"mlock|warning:|WARNING:|^[\d.]+ W ")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def find_shortage(lines: Iterable[str], *, uses_device: bool) -> MemoryShortage | None:
    """The shortage that a server's output speaks of; ``on_device``: where it says only that there was one."""
    text = "\n".join(line for line in lines if not _GOT_OVER.search(line))
    if _DEVICE.search(text):
        return MemoryShortage.DEVICE
    if _HOST.search(text):
        return MemoryShortage.HOST
    if _EITHER.search(text):
        return MemoryShortage.DEVICE if uses_device else MemoryShortage.HOST
    return None


def count_oom_kills() -> int | None:
    """How many processes this kernel has killed for want of memory (Linux, proc_vmstat(5)); None elsewhere."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None


def killed_for_memory(exit_code: int | None, kills_before: int | None) -> bool:
    """Whether it was the kernel that killed a process for want of memory, rather than a person."""
    kills = count_oom_kills()
    if exit_code != -getattr(signal, "SIGKILL", 0) or kills is None or kills_before is None:
        return False
    return kills > kills_before


SMALLER_CACHE = "q8_0"
CACHE_VARIABLES = ("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V")
# What is left of the layers with each step, and of all of them where fewer are no use any more.
LAYERS_KEPT, FEWEST_LAYERS = 2 / 3, 1 / 4
# A context is halved so often: once on a card, twice in the machine's own memory.
DEVICE_HALVINGS, HOST_HALVINGS = 1, 2


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """What the server is started with: ``gpu_layers`` as ``-ngl`` takes it, ``context_size`` in tokens (0: the
    model's own), ``cache_type`` of the KV cache (None: llama.cpp's own choice)."""

    gpu_layers: str
    context_size: int
    cache_type: str | None = None

    @property
    def uses_device(self) -> bool:
        """Whether a graphics card may hold a part of it."""
        return self.gpu_layers != "0"

    def __str__(self) -> str:
        layers = f"{self.gpu_layers} GPU layers" if self.uses_device else "CPU only"
        context = f"context {self.context_size or 'of the model'}"
        return f"{layers}, {self.cache_type or 'default'} KV cache, {context}"


def requested_step(settings: Settings) -> MemoryStep:
    """The top of the ladder."""
    return MemoryStep(settings.gpu_layers, settings.context_size)


class MemoryLadder:
    """The steps for one model under one set of settings."""

    def __init__(self, settings: Settings, model: ModelInfo, environment: Mapping[str, str]) -> None:
        # A type of cache that somebody has chosen may be smaller than ours.
        self._cache_is_chosen = any(name in environment for name in CACHE_VARIABLES)
        self._asked = requested_step(settings)
        # llama.cpp counts the output layer too.
        self._layers = (model.layers or 0) + 1
        # What the context of 0 comes to: every slot gets the model's own.
        self._context = settings.context_size or (model.context or 0) * settings.parallel

    def next_step(self, fit: MemoryStep, shortage: MemoryShortage) -> MemoryStep | None:
        """The next step after one that did not fit; None at the end of the ladder."""
        if shortage is MemoryShortage.DEVICE and fit.uses_device:
            return self._fewer_layers(fit) or self._smaller_cache(fit, DEVICE_HALVINGS) or self._cpu_only()
        return self._smaller_cache(fit, HOST_HALVINGS)

    def _fewer_layers(self, fit: MemoryStep) -> MemoryStep | None:
        # This far down it is the cache that is made smaller.
        if fit.cache_type is not None or fit.context_size != self._asked.context_size:
            return None
        layers = min(int(fit.gpu_layers), self._layers) if fit.gpu_layers.isdigit() else self._layers
        fewer = int(layers * LAYERS_KEPT)
        return replace(fit, gpu_layers=str(fewer)) if fewer >= max(1.0, self._layers * FEWEST_LAYERS) else None

    def _smaller_cache(self, fit: MemoryStep, halvings: int) -> MemoryStep | None:
        if fit.cache_type is None and not self._cache_is_chosen:
            return replace(fit, cache_type=SMALLER_CACHE)
        half = (fit.context_size or self._context) // 2
        return replace(fit, context_size=half) if half and half >= self._context >> halvings else None

    def _cpu_only(self) -> MemoryStep:
        """The machine's memory is another one: it gets the cache and the context that were asked for."""
        return replace(self._asked, gpu_layers="0")
