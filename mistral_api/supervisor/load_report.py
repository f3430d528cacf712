"""What a model server says while it loads a model: on which devices it computes, and how much memory it takes there.

The lines are llama.cpp's (common/common.cpp, ``common_params_print_info``; src/llama-model.cpp, ``load_tensors``;
src/llama-kv-cache.cpp, src/llama-context.cpp; tools/server/server-context.cpp). It prints most of them from verbosity 4
on. A line that a version of it words otherwise is passed over: what it would have said is unknown then, and nothing is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mistral_api.system.byte_sizes import MIB

# The verbosity at which the lines are printed.
VERBOSITY = "4"
# Names of buffers that lie in the machine's own memory; a card's are CUDA0, ROCm1, Vulkan0, SYCL0, MTL0.
_HOST_BUFFER = re.compile(r"CPU|BLAS|AMX|\w+_Host\b")
_DEVICE = re.compile(r"common_param: +- (?P<id>[\w.:\[\]]+) *: (?P<name>.+) \(\d+ MiB, \d+ MiB free\)")
_OFFLOADED = re.compile(r"load_tensors: offloaded (?P<layers>\d+)/(?P<of>\d+) layers to GPU")
_BUFFER = re.compile(
    r"(?:load_tensors|llama_kv_cache\w*|llama_memory_recurrent|llama_context|sched_reserve): +(?P<buffer>[\w.:\[\]]+) +"
    r"(?:model|KV|RS|output|compute) buffer size = +(?P<mib>[\d.]+) MiB"
)
_CONTEXT = re.compile(r"llama_context: n_ctx += (?P<tokens>\d+)")
_SLOTS = re.compile(r"n_slots = \d+, n_ctx_slot = (?P<tokens>\d+), kv_unified = '(?P<unified>true|false)'")


@dataclass(slots=True)
class LoadReport:
    """What is known so far of one load. None: the engine has not said it.

    ``devices``: the names of the cards it sees, by llama.cpp's id. ``offloaded``, ``layers``: how many of the model's
    layers lie on cards, and how many there are. ``device_bytes``, ``host_bytes``: what its buffers take on each device,
    by id, and in the machine's own memory. ``context``: the tokens of its KV cache. ``slot_context``: those that one
    request may use. ``unified``: whether the slots share one cache.
    """

    devices: dict[str, str] = field(default_factory=dict)
    offloaded: int | None = None
    layers: int | None = None
    device_bytes: dict[str, int] = field(default_factory=dict)
    host_bytes: int = 0
    context: int | None = None
    slot_context: int | None = None
    unified: bool | None = None

    def read(self, lines: Iterable[str]) -> None:
        """Take in lines of the engine's output, in order."""
        for line in lines:
            self._read_line(line)

    def _read_line(self, line: str) -> None:
        if found := _DEVICE.search(line):
            if not _HOST_BUFFER.match(found["id"]):
                self.devices[found["id"]] = found["name"]
        elif found := _OFFLOADED.search(line):
            self.offloaded, self.layers = int(found["layers"]), int(found["of"])
        elif found := _BUFFER.search(line):
            self._add(found["buffer"], float(found["mib"]))
        elif found := _SLOTS.search(line):
            self.slot_context, self.unified = int(found["tokens"]), found["unified"] == "true"
        elif found := _CONTEXT.search(line):
            self.context = int(found["tokens"])

    def _add(self, buffer: str, mib: float) -> None:
        taken = round(mib * MIB)
        if _HOST_BUFFER.match(buffer):
            self.host_bytes += taken
        else:
            self.device_bytes[buffer] = self.device_bytes.get(buffer, 0) + taken

    @property
    def computes_on(self) -> list[str]:
        """The names of the devices that hold a part of the model; none while the processor alone computes."""
        return [self.devices.get(device, device) for device in self.device_bytes]
