"""``python -m bench.gpu.held_memory LEAVE_BYTES``: another process that holds the first card's memory, but for so much.

It allocates as any program does (``cuMemAlloc`` of the CUDA driver API), prints how many bytes it holds, and holds them
until its standard input ends. So a large card is as small as one wishes for what is started meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from bench.programs import BenchmarkError

# In pieces, since one allocation need not find so much in one place.
_PIECE = 256 << 20
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class CudaError(Exception):
    """A call of the CUDA driver failed."""


class _Driver:
    """The calls of libcuda that are needed. Raises CudaError."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(f"there is no CUDA driver here: {error}") from error
        self._call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_bytes(self) -> int:
        """Return what can be allocated on the card now."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size: int) -> bool:
        """Allocate so many bytes, which are never freed. Return whether there was room for them."""
        pointer = ctypes.c_uint64()
        return self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size), allowed=_OUT_OF_MEMORY) == 0

    def _call(self, name: str, *arguments: object, allowed: int = 0) -> int:
        code = int(getattr(self._library, name)(*arguments))
        if code not in (0, allowed):
            raise CudaError(f"{name} failed with {code}")
        return code


def hold(leave_bytes: int) -> int:
    """Allocate until so many bytes are left, and return how many are held."""
    driver, held = _Driver(), 0
    while (room := driver.free_bytes() - leave_bytes) > 0:
        piece = min(room, _PIECE)
        if not driver.allocate(piece):
            break
        held += piece
    return held


@contextlib.contextmanager
def memory_held(leave_bytes: int) -> Iterator[int]:
    """Have another process hold all but so many bytes of the first card; yield how many it holds.

    Raises BenchmarkError where it cannot.
    """
    command = [sys.executable, "-m", "bench.gpu.held_memory", str(leave_bytes)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        stdin, stdout, stderr = (_pipe(each) for each in (process.stdin, process.stdout, process.stderr))
        try:
            held = stdout.readline().strip()
            if not held.isdigit():
                raise BenchmarkError(f"No memory of the card can be held: {stderr.read().strip()[-300:]}")
            yield int(held)
        finally:
            stdin.close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - all three were asked for
    return stream


def main() -> int:
    """Hold the memory until standard input ends; return 1 where there is no card."""
    try:
        print(hold(int(sys.argv[1])), flush=True)
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
