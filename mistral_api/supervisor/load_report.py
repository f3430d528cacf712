"""What a model server says while it loads a model: on which devices it computes, and how much memory it takes there.

The lines are llama.cpp's (common/common.cpp, ``common_params_print_info``; src/llama.cpp and src/llama-model.cpp,
``load_tensors``; src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp, src/llama-context.cpp;
tools/server/server-context.cpp). The bundled engine prints them by itself, and a llama-server where it is told to
(:func:`verbosity_of`). A line that a version of it words otherwise is passed over: what it would have said is unknown
then, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mistral_api.control.placement import DeviceShare, Placement
from mistral_api.control.status import BUNDLED
from mistral_api.system.byte_sizes import MIB

VERBOSITY_VARIABLE = "LLAMA_ARG_LOG_VERBOSITY"
# The verbosity at which a llama-server prints the lines, from this build on (llama.cpp, pull request 23021; issue 23290
# was seen with this one). Builds before print them by themselves, and with this verbosity whatever they compute.
_VERBOSITY, _LEAST_BUILD = "4", 9209
_LOG_FILES = ("LLAMA_ARG_LOG_FILE", "LLAMA_LOG_FILE")
# ``9300 (abcdef0)``, and since the summer of 2026 ``0.6.0 (build 11434, commit abcdef0)``.
_BUILD = re.compile(r"(?:[\w.-]+ \(build )?(?P<number>\d+)(?: \(|, commit )")

# Names of buffers that lie in the machine's own memory: CPU, CPU_Mapped, CPU_REPACK, CUDA_Host. A card's begin with its
# id, such as CUDA0, ROCm1, Vulkan0, SYCL0, MTL0_Mapped, RPC0[10.0.0.2:50052].
_HOST_BUFFER = re.compile(r"CPU|Host|BLAS|AMX|\w+_Host\b")
_DEVICE_ID = re.compile(r"[A-Za-z]+\d+")
_DEVICE = re.compile(
    r"common_params?_?\w*: +- (?P<listed>\S+) *: (?P<name>.+) \(\d+ MiB, \d+ MiB free\)"
    r"|: using device (?P<used>\S+) \((?P<description>.+?)\)(?: \([^()]*\))? - \d+ MiB free"
)
_OFFLOADED = re.compile(r"load_tensors: offloaded (?P<layers>\d+)/(?P<of>\d+) layers to GPU")
_BUFFER = re.compile(
    r"(?:load_tensors|llama_kv_cache\w*|llama_memory_recurrent|llama_context|sched_reserve): +(?P<buffer>\S+) +"
    r"(?P<kind>model|KV|RS|output|compute) buffer size = +(?P<mib>[\d.]+) MiB"
)
_CONTEXT = re.compile(r"llama_context: n_ctx += (?P<tokens>\d+)$")
_SLOTS = re.compile(r"n_slots = \d+, n_ctx_slot = (?P<tokens>\d+), kv_unified = '(?P<unified>true|false)'")
# Older builds say it slot by slot, and without the rest.
_SLOT = re.compile(r"new slot,? n_ctx(?:_slot)? = (?P<tokens>\d+)")
# Between these llama.cpp computes what a load would need, and may print the lines of loads that it only tries
# (common/fit.cpp).
_FIT_BEGINS, _FIT_ENDS = "fitting params to device memory", "fitting params to free memory took"


def verbosity_of(engine: str, version: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable with which a llama-server of this version prints the lines; nothing where it needs none.

    A server that writes a log file of its own is left alone: that file would grow with every probe.
    """
    build = _BUILD.match(version or "")
    if engine == BUNDLED or build is None or int(build["number"]) < _LEAST_BUILD:
        return {}
    if any(name in environment for name in _LOG_FILES):
        return {}
    return {VERBOSITY_VARIABLE: _VERBOSITY}


class LoadReport:
    """What is known so far of one load."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        # Bytes by device, and those devices that have more than room for computing.
        self._device_bytes: dict[str, int] = {}
        self._with_model: set[str] = set()
        self._host_bytes: int | None = None
        self._offloaded: tuple[int, int] | None = None
        self._context: int | None = None
        self._request_context: int | None = None
        self._unified: bool | None = None
        self._fits = False

    @property
    def has_begun(self) -> bool:
        """Whether any line was read that says something."""
        return self._host_bytes is not None or self._context is not None

    @property
    def is_complete(self) -> bool:
        """Whether the last line has been read that says something."""
        return self._unified is not None

    def read_line(self, line: str) -> None:
        """Take in one line of the engine's output."""
        if _FIT_BEGINS in line or _FIT_ENDS in line:
            self._fits = _FIT_BEGINS in line
        elif found := _DEVICE.search(line):
            self._names[found["listed"] or found["used"]] = found["name"] or found["description"]
        elif not self._fits:
            self._read_load(line)

    def _read_load(self, line: str) -> None:
        """Take in a line of a real load. Those of a draft model come after those of the model."""
        if found := _BUFFER.search(line):
            self._add(found["buffer"], round(float(found["mib"]) * MIB), found["kind"])
        elif found := _OFFLOADED.search(line):
            self._offloaded = self._offloaded or (int(found["layers"]), int(found["of"]))
        elif found := _CONTEXT.search(line):
            self._context = self._context or int(found["tokens"])
        elif found := _SLOTS.search(line):
            self._request_context, self._unified = int(found["tokens"]), found["unified"] == "true"
        elif found := _SLOT.search(line):
            self._request_context = self._request_context or int(found["tokens"])

    def _add(self, buffer: str, taken: int, kind: str) -> None:
        self._host_bytes = self._host_bytes or 0
        if _HOST_BUFFER.match(buffer):
            self._host_bytes += taken
            return
        found = _DEVICE_ID.match(buffer)
        device = found[0] if found else buffer
        self._device_bytes[device] = self._device_bytes.get(device, 0) + taken
        if kind not in ("output", "compute") and taken:
            self._with_model.add(device)

    def placement(self) -> Placement:
        """Return what is known now."""
        devices = [
            DeviceShare(id=id_, name=self._names.get(id_, id_), memory_bytes=taken, has_model=id_ in self._with_model)
            for id_, taken in self._device_bytes.items()
            if taken
        ]
        # A build for the processor alone says nothing of layers.
        on_processor = self._host_bytes is not None and not self._with_model
        offloaded, layers = self._offloaded or (0 if on_processor else None, None)
        return Placement(
            devices=devices,
            gpu_layers=offloaded,
            layers=layers,
            main_memory_bytes=self._host_bytes,
            context_size=self._context,
            request_context_size=self._request_context,
            unified_cache=self._unified,
        )
