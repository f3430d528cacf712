"""The steps from what was asked for down to what fits: fewer layers, then a smaller KV cache, then the CPU alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mistral_api.settings import Settings
from mistral_api.supervisor.memory.shortage import Shortage
from mistral_api.supervisor.model import ModelInfo

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
    def on_device(self) -> bool:
        """Whether a graphics card may hold a part of it."""
        return self.gpu_layers != "0"

    def __str__(self) -> str:
        layers = f"{self.gpu_layers} GPU layers" if self.on_device else "CPU only"
        context = f"context {self.context_size or 'of the model'}"
        return f"{layers}, {self.cache_type or 'default'} KV cache, {context}"


def requested_step(settings: Settings) -> MemoryStep:
    """The top of the ladder."""
    return MemoryStep(settings.gpu_layers, settings.context_size)


class Ladder:
    """The steps for one model under one set of settings."""

    def __init__(self, settings: Settings, model: ModelInfo, environment: Mapping[str, str]) -> None:
        # A type of cache that somebody has chosen may be smaller than ours.
        self._cache_is_chosen = any(name in environment for name in CACHE_VARIABLES)
        self._asked = requested_step(settings)
        # llama.cpp counts the output layer too.
        self._layers = (model.layers or 0) + 1
        # What the context of 0 comes to: every slot gets the model's own.
        self._context = settings.context_size or (model.context or 0) * settings.parallel

    def below(self, fit: MemoryStep, shortage: Shortage) -> MemoryStep | None:
        """The next step after one that did not fit; None at the end of the ladder."""
        if shortage is Shortage.DEVICE and fit.on_device:
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
