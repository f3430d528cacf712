"""Readings of NVIDIA cards through NVIDIA's management library (NVML).

What the functions mean and which errors they give is in NVIDIA's "NVML API Reference Guide". They are called through
NVIDIA's own bindings (``nvidia-ml-py``, module ``pynvml``). They take about 3 MB, so they are imported with the first
reading, where there is a driver.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

# How often a missing driver, or a card that is gone, is looked for: opening NVML may take seconds.
RETRY_SECONDS = 30.0
# The driver's library. On Windows only the bindings know its places.
LIBRARY = "libnvidia-ml.so.1"

# After these errors a card is gone until NVML is opened anew. Any other error means that one figure is not available.
_GONE_ERRORS = (
    "UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND", "LIB_RM_VERSION_MISMATCH",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card at one moment. A figure is None where the card does not report it.

    ``utilization_percent`` is the share of the last sampling period in which the card computed.
    ``memory_used_bytes`` is what is allocated, without what the driver reserves for itself, as in ``nvidia-smi``.
    """

    index: int
    name: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None


@dataclass(frozen=True, slots=True)
class Card:
    """A reading and what it leaves out: the card's permanent name (NVML's UUID) and the memory still free."""

    uuid: str
    memory_free_bytes: int | None
    reading: GpuReading


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """The driver, and what the cards can compute.

    ``cuda``: the newest CUDA that it supports, such as (12, 8). ``cards``: the name and the compute capability of each
    card that answers, such as ("NVIDIA GeForce RTX 3050", (8, 6)).
    """

    version: str
    cuda: tuple[int, int]
    cards: tuple[tuple[str, tuple[int, int]], ...]


class NvmlSession:
    """NVML, opened with the first reading. For one thread; whoever creates it closes it."""

    def __init__(self, retry_seconds: float = RETRY_SECONDS) -> None:
        self._retry_seconds = retry_seconds
        self._next_open_at = float("-inf")
        self._nvml: Any = None
        self._open = False
        self._last_logged = ""
        self._missing: set[int] = set()

    def cards(self) -> list[Card]:
        """Return the cards that answer; none without a driver. Takes as long as the driver takes."""
        if not self._open and not self._try_open():
            return []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self._log_once(f"NVML does not count its GPUs: {error}")
            count = 0
        cards = [card for index in range(count) if (card := self._card(index)) is not None]
        if not cards or len(cards) < count:
            self._close_for_retry()
        return cards

    def driver(self) -> NvidiaDriver | None:
        """Return the driver and its cards' abilities, or None without a driver. Takes as long as the driver takes."""
        if not self._open and not self._try_open():
            return None
        nvml = self._nvml
        try:
            version, cuda = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetCudaDriverVersion_v2()
            cards = [ability for index in range(nvml.nvmlDeviceGetCount()) if (ability := self._ability(index))]
        except (nvml.NVMLError, UnicodeDecodeError) as error:
            self._log_once(f"NVML does not describe its driver: {error}")
            return None
        # 12080 is CUDA 12.8 (NVML API Reference Guide, nvmlSystemGetCudaDriverVersion_v2).
        return NvidiaDriver(version, (cuda // 1000, cuda % 1000 // 10), tuple(cards))

    def _ability(self, index: int) -> tuple[str, tuple[int, int]] | None:
        """Return a card's name and compute capability, or None where it does not answer."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            return nvml.nvmlDeviceGetName(handle), (major, minor)
        except nvml.NVMLError as error:
            self._log_once(f"GPU {index} does not describe itself: {error}")
            return None

    def close(self) -> None:
        """Release the driver; may be called again. The next reading opens it again."""
        if not self._open:
            return
        self._open = False
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("NVML could not be closed: %s", error)

    def _try_open(self) -> bool:
        """Open NVML, unless that was tried less than ``retry_seconds`` ago. Return whether it is open."""
        if time.monotonic() < self._next_open_at:
            return False
        self._next_open_at = time.monotonic() + self._retry_seconds
        if not _has_library():
            self._log_once(f"no GPU readings: there is no {LIBRARY}")
            return False
        self._nvml = importlib.import_module("pynvml")
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._log_once(f"no GPU readings: {error}")
            return False
        self._open = True
        return True

    def _close_for_retry(self) -> None:
        """Close NVML when it may be opened again: a lost card is found only after that."""
        if time.monotonic() >= self._next_open_at:
            self.close()

    def _log_once(self, sentence: str) -> None:
        if sentence != self._last_logged:
            self._last_logged = sentence
            log.debug("%s", sentence)

    def _card(self, index: int) -> Card | None:
        """Return a card, or None where it is gone, which is logged once."""
        try:
            card = self._read_card(index)
        except (self._nvml.NVMLError, UnicodeDecodeError) as error:
            if index not in self._missing:
                log.warning("GPU %d does not answer: %s", index, error)
            self._missing.add(index)
            return None
        if index in self._missing:
            log.info("GPU %d answers again", index)
        self._missing.discard(index)
        return card

    def _read_card(self, index: int) -> Card:
        """Read a card. Raises pynvml.NVMLError where it is gone."""
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        utilization = self._figure(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._memory(handle)
        milliwatts = self._figure(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        reading = GpuReading(
            index=index,
            name=nvml.nvmlDeviceGetName(handle),
            utilization_percent=None if utilization is None else utilization.gpu,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            temperature_celsius=self._temperature(handle),
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )
        return Card(nvml.nvmlDeviceGetUUID(handle), None if memory is None else memory.free, reading)

    def _memory(self, handle: Any) -> Any:
        """Return the card's memory figures, or None.

        Drivers before R510 know only the first version, which counts the driver's own memory as used.
        """
        nvml = self._nvml
        memory = self._figure(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
        return memory or self._figure(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))

    def _temperature(self, handle: Any) -> int | None:
        """Return the card's temperature in degrees Celsius, or None.

        The first function is deprecated and will go with CUDA 14; older drivers do not know the second.
        """
        nvml = self._nvml
        degrees: int | None = self._figure(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        if degrees is None:
            degrees = self._figure(lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU))
        return degrees

    def _figure(self, read: Callable[[], Any]) -> Any:
        """Return what ``read`` returns, or None where this card or this driver has no such figure.

        Raises pynvml.NVMLError where the card is gone.
        """
        try:
            return read()
        except self._nvml.NVMLError as error:
            if error.value in {getattr(self._nvml, f"NVML_ERROR_{name}") for name in _GONE_ERRORS}:
                raise
            return None


def _has_library() -> bool:
    """Return whether the driver's library can be loaded; where that is not known, True."""
    return sys.platform == "win32" or can_load(LIBRARY)


def can_load(library: str) -> bool:
    """Return whether this process can load a library of a driver."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
