"""NVIDIA's management library (NVML), asked for what its cards are doing.

What the functions mean and which errors they give: NVIDIA's "NVML API Reference Guide", through its own
bindings (``nvidia-ml-py``). Those are imported when a library is first looked for: they take some 3 MB.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

# How often a driver that is not there, or a card that has gone, is looked for: opening NVML may take seconds.
RETRY_SECONDS = 30.0

# After these a card is gone until NVML is opened anew; any other error means that one figure cannot be told.
_GONE = (
    "UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND", "LIB_RM_VERSION_MISMATCH",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card at one moment; None where the card does not tell.

    ``utilization_percent`` is the share of the last sampling period in which it computed, and
    ``memory_used_bytes`` what is allocated, without what the driver keeps for itself, as in ``nvidia-smi``.
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
    """A reading, and what it leaves out: the card's lasting name (NVML's UUID), and what can still be allocated."""

    uuid: str
    memory_free_bytes: int | None
    reading: GpuReading


class NvmlSession:
    """NVML, opened when it is first asked. For one thread; whoever makes it closes it."""

    def __init__(self, retry_seconds: float = RETRY_SECONDS) -> None:
        self._retry_seconds = retry_seconds
        self._try_at = float("-inf")
        self._nvml: Any = None
        self._open = False
        self._said = ""
        self._missing: set[int] = set()

    def cards(self) -> list[Card]:
        """The cards that answer; none without a driver. Takes as long as the driver takes."""
        if not self._open and not self._opened():
            return []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self._say_once(f"NVML does not count its GPUs: {error}")
            count = 0
        cards = [card for index in range(count) if (card := self._card(index)) is not None]
        if not cards or len(cards) < count:
            self._look_anew()
        return cards

    def close(self) -> None:
        """Let go of the driver; idempotent. Asking again opens it again."""
        if not self._open:
            return
        self._open = False
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("NVML could not be closed: %s", error)

    def _opened(self) -> bool:
        """Open NVML, unless that was tried a moment ago."""
        if time.monotonic() < self._try_at:
            return False
        self._try_at = time.monotonic() + self._retry_seconds
        self._nvml = importlib.import_module("pynvml")
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._say_once(f"no GPU readings: {error}")
            return False
        self._open = True
        return True

    def _look_anew(self) -> None:
        """Close NVML so that the next question finds what has come back: a lost card does not without that."""
        if time.monotonic() >= self._try_at:
            self.close()

    def _say_once(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            log.debug("%s", sentence)

    def _card(self, index: int) -> Card | None:
        """A card, or None where it has gone; that is said once."""
        try:
            card = self._read(index)
        except (self._nvml.NVMLError, UnicodeDecodeError) as error:
            if index not in self._missing:
                log.warning("GPU %d does not answer: %s", index, error)
            self._missing.add(index)
            return None
        if index in self._missing:
            log.info("GPU %d answers again", index)
        self._missing.discard(index)
        return card

    def _read(self, index: int) -> Card:
        """Raises pynvml.NVMLError where the card has gone."""
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        utilization = self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._memory(handle)
        milliwatts = self._told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
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
        """Drivers before R510 know only the first version, which counts the driver's own memory as used."""
        nvml = self._nvml
        memory = self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
        return memory or self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))

    def _temperature(self, handle: Any) -> int | None:
        """The first function is deprecated and will go with CUDA 14; older drivers do not know the second."""
        nvml = self._nvml
        degrees: int | None = self._told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        if degrees is None:
            degrees = self._told(lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU))
        return degrees

    def _told(self, ask: Callable[[], Any]) -> Any:
        """What the driver answers, or None where this card, or this driver, has no such figure."""
        try:
            return ask()
        except self._nvml.NVMLError as error:
            if error.value in {getattr(self._nvml, f"NVML_ERROR_{name}") for name in _GONE}:
                raise
            return None
