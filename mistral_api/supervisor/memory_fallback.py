"""What is tried next when memory is short: fewer GPU layers, then a smaller KV cache, then the CPU alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mistral_api.control.shared_cache import whole_context
from mistral_api.model_files.served_model import ModelInfo
from mistral_api.settings import Settings
from mistral_api.supervisor.memory_shortage import MemoryShortage

SMALLER_CACHE = "q8_0"
CACHE_VARIABLES = ("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V")
# The share of the layers that a step keeps, and the share of all layers below which fewer are of no use.
LAYERS_FACTOR, MIN_LAYERS_SHARE = 2 / 3, 1 / 4
# How often the context is halved: on a card, and in the machine's own memory.
DEVICE_HALVINGS, HOST_HALVINGS = 1, 2


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
    """Return the first step: what the settings ask for."""
    return MemoryStep(settings.gpu_layers, settings.context_size)


class MemoryFallback:
    """The steps for one model with one set of settings."""

    def __init__(self, settings: Settings, model: ModelInfo, environment: Mapping[str, str]) -> None:
        # A cache type that the operator has chosen may be smaller than ours.
        self._cache_type_is_chosen = any(name in environment for name in CACHE_VARIABLES)
        self._requested = requested_step(settings)
        # llama.cpp counts the output layer too.
        self._layers = (model.layers or 0) + 1
        self._context = whole_context(settings, model.context, environment)

    def next_step(self, step: MemoryStep, shortage: MemoryShortage) -> MemoryStep | None:
        """Return the step after one that did not fit; None after the last."""
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
