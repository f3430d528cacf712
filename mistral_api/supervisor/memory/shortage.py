"""Whether a server died for want of memory, and of which: read from llama.cpp's own messages and the kernel's count.

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


class Shortage(Enum):
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


def shortage_in(lines: Iterable[str], *, on_device: bool) -> Shortage | None:
    """The shortage that a server's output speaks of; ``on_device``: where it says only that there was one."""
    text = "\n".join(line for line in lines if not _GOT_OVER.search(line))
    if _DEVICE.search(text):
        return Shortage.DEVICE
    if _HOST.search(text):
        return Shortage.HOST
    if _EITHER.search(text):
        return Shortage.DEVICE if on_device else Shortage.HOST
    return None


def oom_kills() -> int | None:
    """How many processes this kernel has killed for want of memory (Linux, proc_vmstat(5)); None elsewhere."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None


def killed_for_memory(exit_code: int | None, kills_before: int | None) -> bool:
    """Whether it was the kernel that killed a process for want of memory, rather than a person."""
    kills = oom_kills()
    if exit_code != -getattr(signal, "SIGKILL", 0) or kills is None or kills_before is None:
        return False
    return kills > kills_before
