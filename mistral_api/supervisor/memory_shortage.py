"""Whether a model server died for lack of memory, by llama.cpp's own messages and the kernel's count of its kills.

The messages stand in llama.cpp's ``ggml/src/ggml-cuda/ggml-cuda.cu``, ``ggml-vulkan/ggml-vulkan-buffers.cpp``,
``ggml-alloc.c``, ``ggml-backend.cpp``, ``ggml.c`` and in ``src/llama-model.cpp``, ``llama-context.cpp``,
``llama-kv-cache.cpp``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

# The messages name a buffer's type: CUDA0, ROCm0, Vulkan1, SYCL0, Metal, and of a worker RPC0[10.0.0.2:50052]. The
# machine's own are CPU, CPU_REPACK and the pinned CUDA_Host.
_DEVICE_SHORTAGE = re.compile(
    r"cudaMalloc failed|CUDA error: out of memory|hipMalloc failed|ROCm error: out of memory"
    r"|OutOfDeviceMemory|Device memory allocation of size \d+ failed|exceeds device (buffer|memory)"
    r"|failed to allocate Metal buffer|ErrorOutOfMemory"
    r"|(unable|failed) to allocate (CUDA|ROCm|Vulkan|SYCL|Metal|MUSA|CANN|OpenCL)(?!_Host)\w* buffer"
    r"|(unable|failed) to allocate RPC\S* buffer"
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


def shortage_words(line: str) -> str:
    """Return the words of a line by which :func:`find_shortage` knows a shortage; an empty text without such words."""
    if _HARMLESS.search(line):
        return ""
    found = (pattern.search(line) for pattern in (_DEVICE_SHORTAGE, _HOST_SHORTAGE, _SHORTAGE))
    return " / ".join(match[0] for match in found if match)


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
