"""The check of the machines that compute with a model server of ours: ``LLAMA_ARG_RPC``."""

from __future__ import annotations

from collections.abc import Iterator

from mistral_api.control.rpc_workers import (
    RpcWorker,
    WorkerState,
    exposure_sentence,
    worker_addresses,
    worker_from_fields,
)
from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.control.status import State, read_status
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import choose_engine
from mistral_api.supervisor.rpc_probe import probe_workers
from mistral_api.supervisor.rpc_workers import require_usable_workers

SUBJECT = "workers"
# While the supervisor is in one of these, its engine may be connected to the workers, and they answer nobody else.
_CONNECTED = (State.STARTING, State.LOADING, State.READY, State.UNRESPONSIVE)
_USABLE = (WorkerState.READY, WorkerState.IN_USE)


def check_workers(settings: Settings) -> Iterator[Finding]:
    """Say of each worker whether it can be used, and how much memory it offers; nothing where none is named."""
    for spec in server_specs(settings):
        try:
            workers = _workers_of(spec)
        except StartError as error:
            yield failure(SUBJECT, str(error))
            continue
        for worker in workers:
            yield _finding(worker)
        exposed = exposure_sentence(worker.address for worker in workers)
        if exposed is not None:
            yield warning(SUBJECT, exposed)


def _workers_of(spec: ServerSpec) -> list[RpcWorker]:
    """Return the workers as they are now, or as the supervisor has found them. Raises StartError."""
    if not worker_addresses(spec.environment()):
        return []  # what is wrong with the engine is said by its own check
    addresses = require_usable_workers(spec, choose_engine(spec.settings, lambda: False))
    status = read_status(spec.settings.data_dir, spec.name)
    if status is not None and status.state in _CONNECTED:
        return [worker_from_fields(fields) for fields in status.rpc_workers]
    workers = [RpcWorker(address=address) for address in addresses]
    return list(probe_workers(workers, lambda: False, may_release=False))


def _finding(worker: RpcWorker) -> Finding:
    if worker.state in _USABLE or worker.problem is None:
        return ok(SUBJECT, worker.describe())
    return failure(SUBJECT, worker.problem, f"there: ggml-rpc-server -H {worker.address.host} -p {worker.address.port}")
