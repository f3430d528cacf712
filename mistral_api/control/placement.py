"""Where a loaded model lies, what computes it, and how much context it has: what is in effect, whatever was set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mistral_api.system.byte_sizes import format_size

PROCESSOR = "the processor"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceShare:
    """What a model server has on one card.

    ``id`` is llama.cpp's, such as ``CUDA0``; ``name`` the driver's. ``has_model``: whether a part of the model or of
    its cache lies there. Without, only room for computing does: llama.cpp computes long prompts on a card then.
    """

    id: str
    name: str
    memory_bytes: int
    has_model: bool = True

    def __str__(self) -> str:
        return self.id if self.name == self.id else f"{self.id} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a model server has said of its model. None: it has not said it. The field names are keys of a file.

    ``gpu_layers`` of ``layers`` lie on cards, the output layer among them. ``main_memory_bytes``: what its buffers
    take in the machine's own memory, without its cache of prompts. ``context_size``: the tokens of its KV cache.
    ``request_context_size``: those that one request may use, its answer among them. ``unified_cache``: whether all
    slots share one cache.
    """

    devices: list[DeviceShare] = field(default_factory=list)
    gpu_layers: int | None = None
    layers: int | None = None
    main_memory_bytes: int | None = None
    context_size: int | None = None
    request_context_size: int | None = None
    unified_cache: bool | None = None

    @property
    def is_known(self) -> bool:
        """Whether the server has said where the model lies."""
        return self.main_memory_bytes is not None

    @property
    def computing(self) -> list[DeviceShare]:
        """The cards that have a part of the model."""
        return [device for device in self.devices if device.has_model]

    @property
    def device(self) -> str | None:
        """What computes: ``cpu``, or the cards by id and name; None where that is unknown."""
        if not self.is_known:
            return None
        return ", ".join(map(str, self.computing)) or "cpu"

    def __str__(self) -> str:
        return f"{self.describe_devices()}; {self.describe_context()}"

    def describe_devices(self) -> str:
        """Return what computes, and the memory that is taken, in words."""
        if not self.is_known:
            return "on a device that it does not name"
        taken = f"{format_size(self.main_memory_bytes or 0)} in main memory"
        if not self.computing:
            room = "".join(
                f", {format_size(each.memory_bytes)} on {each.name} for long prompts" for each in self.devices
            )
            return f"on {PROCESSOR}, {taken}{room}"
        layers = f"{self.gpu_layers} of {self.layers} layers, " if self.gpu_layers is not None else ""
        there = " and ".join(f"{format_size(each.memory_bytes)} on {each.name}" for each in self.devices)
        if len(self.devices) == 1:
            there = f"{format_size(self.devices[0].memory_bytes)} there"
        names = " and ".join(each.name for each in self.computing)
        return f"on {names}, {layers}{there}, {taken}"

    def describe_context(self) -> str:
        """Return the tokens of the context in words."""
        whole, request = self.context_size, self.request_context_size
        if whole is None:
            return "context unknown" if request is None else f"context {request} a request"
        if request is None or request == whole:
            return f"context {whole}{', shared by all requests' if self.unified_cache else ''}"
        return f"context {whole}, {request} a request"


def read_placement(fields: Mapping[str, Any]) -> Placement:
    """Return what a file has of a placement. Raises TypeError or KeyError for anything else."""
    return Placement(**{**fields, "devices": [DeviceShare(**each) for each in fields["devices"]]})
