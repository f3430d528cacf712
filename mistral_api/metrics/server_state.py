"""The state that all API processes share: the journal, the model servers as their supervisor says, the cards.

It is read when somebody asks: from the journal's file, the status files and the drivers. PostgreSQL is never asked.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from mistral_api.control.placement import Placement
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.hardware.nvml import GpuReading
from mistral_api.metrics.families import counter, gauge
from mistral_api.recording.recorder import RecordingState
from mistral_api.settings import Settings
from mistral_api.system.processes import is_alive
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServers
from mistral_api.version import VERSION


@dataclass(frozen=True, slots=True)
class ServerSources:
    """Where the state is read."""

    model_servers: ModelServers
    recording_state: Callable[[], RecordingState]
    read_gpus: Callable[[], list[GpuReading]]


def collect_server_state(sources: ServerSources) -> list[Metric]:
    """Return the families of what all processes share."""
    families = [_build(), *_journal(sources.recording_state())]
    engine = _EngineFamilies()
    for entry in sources.model_servers.all:
        engine.add(entry)
    return [*families, *engine.families(), *_gpus(sources.read_gpus())]


def _build() -> Metric:
    labels = {"version": VERSION, "python": platform.python_version()}
    return InfoMetricFamily("mistral_api_build", "The version of this server.", labels)


def _journal(state: RecordingState) -> list[Metric]:
    families: list[Metric] = []
    for name, text, value in (
        ("journal_writable", "Whether the journal can be written: 1 or 0", float(state.healthy)),
        ("journal_exchanges", "Exchanges in the journal that PostgreSQL does not have yet", state.pending),
        (
            "journal_oldest_age_seconds",
            "Age of the oldest exchange in the journal",
            state.oldest_pending_seconds or 0.0,
        ),
        (
            "journal_rejected_exchanges",
            "Exchanges that were set aside in the journal, since PostgreSQL will never take them",
            state.rejected,
        ),
    ):
        family = gauge(name, text)
        family.add_metric([], value)
        families.append(family)
    return families


class _EngineFamilies:
    """The families of the model servers. One that somebody else runs has no state here: nothing is known of it."""

    def __init__(self) -> None:
        self._slots = gauge("slots", "Slots of a model server", "server")
        self._state = gauge(
            "model_server_state", "The state of a model server: 1 for the one it is in", "server", "state"
        )
        self._restarts = counter(
            "model_server_restarts", "Restarts of a model server since its supervisor started", "server", "reason"
        )
        self._step = gauge(
            "model_server_memory_step",
            "What was given up for want of memory: 0 nothing, 1 GPU layers, 2 cache or context, 3 the card, 4 the card "
            "and cache or context",
            "server",
        )
        self._context = gauge("model_context_tokens", "Tokens of the whole context, which the slots share", "server")
        self._request_context = gauge("model_request_context_tokens", "Tokens that one request may use", "server")
        self._layers = gauge("model_offloaded_layers", "Layers of the model that lie on cards", "server")
        self._taken = gauge(
            "model_memory_bytes", "Memory taken for the model, its cache and computing, by its own words",
            "server", "device",
        )  # fmt: skip
        self._parameters = gauge("model_parameters", "Parameters of the model", "server")
        self._info = InfoMetricFamily("mistral_api_model", "The model of a model server.")
        self._memory = gauge("model_server_resident_memory_bytes", "Memory of a model server's process", "server")
        self._cpu = counter("model_server_cpu_seconds", "Processor time of a model server's process", "server")

    def add(self, entry: ModelServerEntry) -> None:
        """Add one server."""
        if entry.client.slots is not None:
            self._slots.add_metric([entry.name], entry.client.slots)
        if entry.spec is None:
            names = entry.catalogue.known_names()
            self._info.add_metric([], {"server": entry.name, "model": names[0] if names else "", "engine": "external"})
            return
        status = read_status(entry.spec.settings.data_dir, entry.name)
        if status is not None:
            self._add_supervised(entry.name, status, entry.spec.settings)

    def _add_supervised(self, name: str, status: ModelServerStatus, settings: Settings) -> None:
        for state in State:
            self._state.add_metric([name, state.value], float(status.state is state))
        for reason, count in status.restart_reasons.items():
            self._restarts.add_metric([name, reason], count)
        self._step.add_metric([name], memory_step(status, settings))
        self._context.add_metric([name], status.whole_context or status.model_context or 0)
        if status.placement is not None:
            self._add_placement(name, status.placement)
        if status.parameters is not None:
            self._parameters.add_metric([name], status.parameters)
        info = {
            "server": name,
            "model": status.model,
            "engine": status.engine,
            "engine_version": status.engine_version or "",
            "architecture": status.architecture or "",
            "quantization": status.quantization or "",
            "device": (status.placement and status.placement.device) or "",
            "gpu_layers": status.gpu_layers if status.offloaded_layers is None else str(status.offloaded_layers),
        }
        self._info.add_metric([], info)
        self._add_process(name, status)

    def _add_placement(self, name: str, placement: Placement) -> None:
        """Add what the server has said of its load; what it has not said has no sample."""
        for family, value in (
            (self._request_context, placement.request_context_size),
            (self._layers, placement.gpu_layers),
        ):
            if value is not None:
                family.add_metric([name], value)
        if placement.main_memory_bytes is not None:
            self._taken.add_metric([name, "main memory"], placement.main_memory_bytes)
        for device in placement.devices:
            self._taken.add_metric([name, device.id], device.memory_bytes)

    def _add_process(self, name: str, status: ModelServerStatus) -> None:
        identity = status.server_process
        if identity is None or not is_alive(identity):
            return
        try:
            process = psutil.Process(identity.pid)
            memory, times = process.memory_info().rss, process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is another account's
            return
        self._memory.add_metric([name], memory)
        self._cpu.add_metric([name], times.user + times.system)

    def families(self) -> list[Metric]:
        """Return them all."""
        return [
            self._slots,
            self._state,
            self._restarts,
            self._step,
            self._context,
            self._request_context,
            self._layers,
            self._taken,
            self._parameters,
            self._info,
            self._memory,
            self._cpu,
        ]


def memory_step(status: ModelServerStatus, settings: Settings) -> int:
    """Return how far down the ladder of memory a model server is (``supervisor/memory_fallback.py``)."""
    if status.memory_step is None:
        return 0
    smaller = status.cache_type is not None or status.context_size != settings.context_size
    if status.gpu_layers == "0" and settings.gpu_layers != "0":
        return 4 if smaller else 3
    return 2 if smaller else 1


def _gpus(readings: list[GpuReading]) -> list[Metric]:
    used = gauge("gpu_memory_used_bytes", "Memory in use on a card", "gpu", "name")
    total = gauge("gpu_memory_total_bytes", "Memory of a card", "gpu", "name")
    busy = gauge("gpu_utilization_ratio", "Share of the time in which a card computed, from 0 to 1", "gpu", "name")
    heat = gauge("gpu_temperature_celsius", "Temperature of a card", "gpu", "name")
    power = gauge("gpu_power_watts", "Power that a card draws", "gpu", "name")
    for card in readings:
        share = None if card.utilization_percent is None else card.utilization_percent / 100
        for family, value in (
            (used, card.memory_used_bytes),
            (total, card.memory_total_bytes),
            (busy, share),
            (heat, card.temperature_celsius),
            (power, card.power_watts),
        ):
            _add_known(family, card, value)
    return [used, total, busy, heat, power]


def _add_known(family: GaugeMetricFamily, card: GpuReading, value: float | None) -> None:
    if value is not None:
        family.add_metric([str(card.index), card.name], value)
