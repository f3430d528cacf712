"""The model servers that an API process knows: the main one, the one of EMBEDDING_MODEL_PATH, and their health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NotRequired, TypedDict

from mistral_api.constraints.gate import ConstraintGate
from mistral_api.control.feedback import FeedbackWriter
from mistral_api.control.placement import Placement
from mistral_api.control.rpc_workers import WorkerHealth, worker_from_fields
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec, embedding_server_spec, main_server_spec
from mistral_api.control.shared_cache import SharedCache
from mistral_api.control.status import ModelServerStatus, State, StatusReader, read_status
from mistral_api.errors import ModelServerError
from mistral_api.model_files.served_model import served_model_names, stand_in_names
from mistral_api.settings import Settings
from mistral_api.upstream.cache_salts import CacheSalts
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.catalogue import Catalogue, StandInRule, model_not_found
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.external_probe import probe_external
from mistral_api.upstream.idle_slots import IdleSlots
from mistral_api.upstream.request_limits import RequestLimits
from mistral_api.upstream.server_identity import ServerIdentity
from mistral_api.upstream.shared_slots import SharedSlots, Sharing
from mistral_api.upstream.slot_counts import count_slots
from mistral_api.upstream.slot_gate import SlotGate
from mistral_api.upstream.slot_owners import SlotOwners
from mistral_api.upstream.slot_table import RestoredSlots

# A request asks for the status five times, and takes one that is so old.
STATUS_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ModelServerEntry:
    """One model server. ``spec``, ``status`` and ``feedback`` are there where a supervisor of ours looks after it.

    ``limits``: what of a request it gets; ``slot_gate``: how its slots are shared; ``slot_owners``: whose prompts are
    in them; ``constraints``: the gate that grammars and JSON schemas pass on their way to it; ``cache_salts``: what
    keeps owners apart in an engine that may have no slots; ``idle_slots``: what earlier requests have left in slots.
    """

    client: ModelServerClient
    catalogue: Catalogue
    limits: RequestLimits
    slot_gate: SlotGate
    slot_owners: SlotOwners
    constraints: ConstraintGate
    idle_slots: IdleSlots
    spec: ServerSpec | None = None
    status: StatusReader | None = None
    feedback: FeedbackWriter | None = None
    cache_salts: CacheSalts | None = None

    @property
    def name(self) -> str:
        """The name of the server, as its files have it."""
        return MAIN_SERVER if self.spec is None else self.spec.name

    def serves(self, name: str) -> bool:
        """Whether it serves a model of this name. Raises ModelServerError where only a server that is away knows."""
        if name in self.catalogue.known_names():
            return True
        return self.spec is None and any(model.id == name for model in self.catalogue.models())

    def answers_for(self, name: str) -> bool:
        """Whether its model answers a request for a model of this name, which nobody serves."""
        return self.catalogue.stand_in(name) is not None

    def suits(self, *, ranks: bool) -> bool:
        """Whether it may be asked for scores (``ranks``) or vectors: it can, or nobody knows before it is asked."""
        return self.spec is None or self.spec.is_reranker in (None, ranks)

    def probe(self) -> str:
        """Return ``"ready"``, ``"loading"`` or ``"unreachable"``, as the server is now."""
        return self.client.probe() if self.spec is not None else probe_external(self.client).state

    def shared_cache(self) -> SharedCache | None:
        """Return the KV cache that its slots share, None where each has its own, or nobody knows."""
        return None if self.status is None else self.status.shared_cache()

    def process(self) -> object | None:
        """Return what tells one process of the server from the next; None where nobody knows."""
        return None if self.status is None else self.status.server_process()

    def system_fingerprint(self) -> str | None:
        """Return what responses say of the engine, the model and their settings; None for another one's own words."""
        return None if self.status is None else self.status.system_fingerprint()

    def build_info(self) -> str | None:
        """Return the version of the engine where it does not know its own."""
        return None if self.status is None else self.status.build_info()

    def start(self) -> None:
        """Begin to write feedback."""
        if self.feedback is not None:
            self.feedback.start()

    def close(self) -> None:
        """End its connections and the trials of constraints, and write the last feedback."""
        self.client.close()
        self.constraints.close()
        if self.feedback is not None:
            self.feedback.close()


def supervised_server(
    spec: ServerSpec, watcher: DisconnectWatcher, sharing: Sharing, other_models: Sequence[str] = ()
) -> ModelServerEntry:
    """Return a model server that a supervisor of ours looks after.

    ``watcher`` watches its calls, ``sharing`` says who shares it. ``other_models``: the names of models that another
    server of ours serves.
    """
    data_dir, status = (
        spec.settings.data_dir,
        StatusReader(spec.settings.data_dir, spec.name, unasked_seconds=STATUS_SECONDS),
    )

    def given_up() -> str | None:
        reason = f"The {spec.label} is not running and will not be restarted soon; see its status in /health."
        return reason if status.is_given_up() else None

    client = ModelServerClient(spec.settings, given_up, status.is_starting, watcher, spec.name)
    settings = spec.settings
    stand_in = StandInRule(stand_in_names(settings), settings.any_model)
    catalogue = Catalogue(client, served_model_names(settings), other_models, stand_in)
    limits = RequestLimits(
        supervised=True,
        pass_unknown=settings.pass_unknown_fields,
        most_output=lambda: settings.max_output_tokens or _longest_answer(status),
    )
    slots = SharedSlots(spec.name, client.slots, sharing, status.cache_tokens)
    restored = RestoredSlots(status.restored_slots, partial(unused_slots, client))
    owners = slots.owners(status.server_process, status.has_prompt_cache, restored)
    gate = slots.gate(settings.model_read_seconds, settings.max_waiting)
    constraints = ConstraintGate(data_dir, lambda: status.model_path() or settings.model_path)
    feedback = FeedbackWriter(data_dir, spec.name)
    idle = IdleSlots(client, status.shared_cache)
    return ModelServerEntry(client, catalogue, limits, gate, owners, constraints, idle, spec, status, feedback)


def _longest_answer(status: StatusReader) -> int | None:
    """Return how many tokens an answer may have, None where that is decided when it has its turn, or nobody knows."""
    return None if status.shared_cache() else status.context_size()


def external_server(
    settings: Settings, watcher: DisconnectWatcher, sharing: Sharing, other_models: Sequence[str] = ()
) -> ModelServerEntry:
    """Return the model server of MODEL_SERVER_URL, which somebody else runs; as :func:`supervised_server`."""
    client = ModelServerClient(settings, lambda: None, lambda: False, watcher)
    limits = RequestLimits(
        supervised=False,
        pass_unknown=settings.pass_unknown_fields,
        most_output=lambda: settings.max_output_tokens or None,
    )
    slots = SharedSlots(MAIN_SERVER, client.slots, sharing)
    owners = slots.owners(lambda: None, lambda: True)
    gate = slots.gate(settings.model_read_seconds, settings.max_waiting)
    catalogue = Catalogue(client, [], other_models, StandInRule(any=settings.any_model))
    constraints = ConstraintGate(settings.data_dir, lambda: None, catalogue.is_llama_cpp)
    salts = CacheSalts(catalogue.is_vllm, sharing.several_owners)
    idle = IdleSlots(client, lambda: None)
    return ModelServerEntry(client, catalogue, limits, gate, owners, constraints, idle, cache_salts=salts)


def unused_slots(client: ModelServerClient) -> frozenset[int]:
    """Return the slots that had no request since the model server started; none where it does not say.

    llama.cpp shows no ``id_task`` with them (``server_slot::to_json`` in tools/server/server-context.cpp).
    """
    try:
        slots = client.get("/slots")
        return frozenset(int(slot["id"]) for slot in slots if not slot["is_processing"] and "id_task" not in slot)
    except (ModelServerError, KeyError, TypeError, ValueError):
        return frozenset()


class ModelServers:
    """The model servers by what they serve; owns them until :meth:`close`."""

    def __init__(self, settings: Settings, sharing: Sharing) -> None:
        self.watcher = DisconnectWatcher()
        embedding = embedding_server_spec(settings)
        # It generates nothing, so nobody waits for its slots, or is sent to one of them.
        self.embedding = None if embedding is None else supervised_server(embedding, self.watcher, sharing.alone)
        names = self.embedding.catalogue.known_names() if self.embedding else ()
        if settings.supervised:
            self.main = supervised_server(main_server_spec(settings), self.watcher, sharing, names)
        else:
            self.main = external_server(settings, self.watcher, sharing, names)
        self.all = [self.main] if self.embedding is None else [self.main, self.embedding]

    def identify(self, identity: ServerIdentity) -> None:
        """Let all say of the server what its other processes say. Call it before the first request."""
        for entry in self.all:
            entry.catalogue.started_at = identity.started_at
            if entry.cache_salts is not None:
                entry.cache_salts.secret = identity.secret

    def start(self) -> None:
        """Begin to write feedback to every supervisor."""
        for entry in self.all:
            entry.start()

    def close(self) -> None:
        """Cancel what is in flight, and end all connections."""
        self.main.slot_gate.close()
        self.watcher.close()
        for entry in self.all:
            entry.close()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no request is in flight, for at most ``seconds``. Return whether none is, or waits for a slot."""
        return self.watcher.wait_until_idle(seconds) and self.main.slot_gate.idle

    def end_requests(self) -> None:
        """End every request that is in flight, or waits for a slot: the server stops."""
        self.main.slot_gate.close()
        self.watcher.cancel_all("shutdown")

    def named(self, model: str | None) -> list[ModelServerEntry]:
        """Return the servers of a model, the embedding server first; all servers where no model is named.

        Raises NotFound (``model_not_found``).
        """
        entries = list(reversed(self.all))
        named = [entry for entry in entries if model is None or entry.serves(model)]
        if not named and model is not None:
            named = [entry for entry in entries if entry.answers_for(model)]
        if not named:
            served = [each.id for entry in self.all for each in entry.catalogue.models()]
            raise model_not_found(model or "", list(dict.fromkeys(served)))
        return named

    def known_models(self) -> set[str]:
        """Return the models that are served, as far as they are known without asking."""
        return {name for entry in self.all for name in entry.catalogue.known_names()}

    def default_model(self) -> str | None:
        """Return the model that the main server serves, if that is known without asking."""
        return self.main.catalogue.default()


class DeviceMemoryHealth(TypedDict):
    """What a model server has on one card."""

    id: str
    name: str
    bytes: int


class MemoryHealth(TypedDict):
    """What a model server has taken for its model, by its own words: in the machine's memory, and on each card."""

    main_bytes: int | None
    devices: list[DeviceMemoryHealth]


class ModelServerHealth(TypedDict):
    """The ``model_server`` object of ``/health``.

    ``device``, ``memory``, ``pid``, ``workers`` and ``last_error`` are not for strangers. ``gpu_layers`` of ``layers``
    lie on cards; ``gpu_layers_set`` is what was asked for. ``context_size`` is what all slots have together,
    ``request_context_size`` what one request has.
    """

    state: str
    model: str | None
    engine: str | None
    engine_version: str | None
    system_fingerprint: str | None
    pid: NotRequired[int | None]
    restarts: int
    device: NotRequired[str | None]
    gpu_layers: int | None
    layers: int | None
    gpu_layers_set: str | None
    memory: NotRequired[MemoryHealth | None]
    context_size: int | None
    request_context_size: int | None
    unified_cache: bool | None
    slots: dict[str, int] | None
    workers: NotRequired[list[WorkerHealth]]
    last_error: NotRequired[str | None]


# The state of a model server by its answer to a probe, where nobody supervises it.
_STATES = {"ready": State.READY, "loading": State.LOADING, "unreachable": State.STOPPED}


def model_server_health(entry: ModelServerEntry) -> ModelServerHealth:
    """Return what the supervisor of a model server says, checked against what the server answers."""
    if entry.spec is None:
        return _external_health(entry)
    probe, spec = entry.client.probe(), entry.spec
    status = read_status(spec.settings.data_dir, spec.name)
    placement = (None if status is None else status.placement) or Placement()
    names = entry.catalogue.known_names()
    return {
        "state": _state(probe, status),
        "model": names[0] if names else None,
        "engine": status.engine if status else None,
        "engine_version": status.engine_version if status else None,
        "system_fingerprint": status.system_fingerprint if status else None,
        "pid": status.pid if status else None,
        "restarts": status.restarts if status else 0,
        "device": placement.device,
        "gpu_layers": placement.gpu_layers,
        "layers": placement.layers,
        "gpu_layers_set": status.gpu_layers if status else None,
        "memory": _memory(placement),
        "context_size": status.whole_context if status else None,
        "request_context_size": placement.request_context_size,
        "unified_cache": placement.unified_cache,
        "slots": count_slots(entry.client, may_sleep=spec.sleep_seconds is not None) if probe == "ready" else None,
        "workers": [] if status is None else [worker_from_fields(fields).health() for fields in status.rpc_workers],
        "last_error": status.last_error if status else None,
    }


def _memory(placement: Placement) -> MemoryHealth | None:
    if not placement.is_known:
        return None
    devices: list[DeviceMemoryHealth] = [
        {"id": device.id, "name": device.name, "bytes": device.memory_bytes} for device in placement.devices
    ]
    return {"main_bytes": placement.main_memory_bytes, "devices": devices}


def _external_health(entry: ModelServerEntry) -> ModelServerHealth:
    """Return how the model server is that somebody else runs."""
    probe = probe_external(entry.client)
    names = entry.catalogue.known_names()
    return {
        "state": _STATES[probe.state].value,
        "model": names[0] if names else None,
        "engine": "external",
        "engine_version": None,
        "system_fingerprint": None,
        "pid": None,
        "restarts": 0,
        "device": None,
        "gpu_layers": None,
        "layers": None,
        "gpu_layers_set": None,
        "memory": None,
        "context_size": None,
        "request_context_size": None,
        "unified_cache": None,
        "slots": count_slots(entry.client) if probe.state == "ready" else None,
        "workers": [],
        "last_error": probe.cause,
    }


def _state(probe: str, status: ModelServerStatus | None) -> str:
    """Return the state. The answer of the model server counts for more than the status file: it is newer.

    But a server that says it is ready may be caught in a loop, or be restoring its caches. Its supervisor knows.
    """
    if status is not None and status.state in (State.UNRESPONSIVE, State.STARTING, State.LOADING):
        return status.state.value
    if probe != "unreachable" or status is None:
        return _STATES[probe].value
    return State.UNRESPONSIVE.value if status.state is State.READY else status.state.value
