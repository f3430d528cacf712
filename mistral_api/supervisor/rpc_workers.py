"""The workers of one model server: checked before each start and waited for, watched while the server runs.

A worker that is away, as one that is started anew is, is waited for however long it takes: it needs nobody here.
Nothing is asked of a worker while our engine is connected to it, since it serves one connection at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace

from mistral_api.control.rpc_workers import (
    RPC_VARIABLE,
    RpcWorker,
    WorkerAddress,
    WorkerState,
    exposure_sentence,
    worker_addresses,
    worker_from_fields,
)
from mistral_api.control.server_environment import llama_variables
from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import BUNDLED, ModelServerStatus, State
from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.errors import StartError
from mistral_api.supervisor.engine import Engine, refused_workers
from mistral_api.supervisor.events import Events
from mistral_api.supervisor.rpc_connections import WorkerConnections
from mistral_api.supervisor.rpc_probe import WorkerProbes
from mistral_api.supervisor.status_reporter import StatusReporter

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, WAIT_GROWTH = 0.5, 15.0, 1.5
# What ggml prints before it ends a program whose worker is gone (ggml-rpc.cpp).
LOSSES = ("Remote RPC server crashed or returned malformed response", "Failed to connect to ", "RPC handshake failed")


def require_usable_workers(spec: ServerSpec, engine: Engine) -> tuple[WorkerAddress, ...]:
    """Return the workers that a model server is to use. Raises StartError where it cannot use them."""
    variable = f"{spec.variable_prefix}{RPC_VARIABLE.removeprefix(LLAMA_PREFIX)}"
    addresses = worker_addresses(spec.environment(), variable)
    if addresses and engine.name == BUNDLED:
        raise StartError(
            f"{variable}: the bundled engine cannot compute on other machines; set LLAMA_SERVER_BIN to a llama-server "
            "that was built with -DGGML_RPC=ON, as llama.cpp's releases are."
        )
    taken = () if spec.variable_prefix == LLAMA_PREFIX else worker_addresses(llama_variables(os.environ))
    for address in addresses:
        if address in taken:
            raise StartError(
                f"{variable}: the worker {address} computes for the main model server already, and for one program at "
                "a time; start another ggml-rpc-server there, on another port."
            )
    return addresses


def names_lost_worker(lines: Iterable[str]) -> bool:
    """Return whether a server's output says that it ended because a worker was gone."""
    return any(loss in line for line in lines for loss in LOSSES)


def left_workers(status: ModelServerStatus | None) -> list[RpcWorker]:
    """Return the workers in the status that an earlier supervisor has left."""
    try:
        return [] if status is None else [worker_from_fields(fields) for fields in status.rpc_workers]
    except (KeyError, TypeError, ValueError, StartError):  # it was written by another version of this program
        return []


class RpcWorkers:
    """The workers of one model server, for as long as its supervisor runs."""

    def __init__(
        self, spec: ServerSpec, engine: Engine, addresses: Iterable[WorkerAddress], left: Iterable[RpcWorker] = ()
    ) -> None:
        """``left``: the workers of an earlier supervisor, whose engine may have left connections."""
        ends = {worker.address: worker.local_endpoint for worker in left}
        self._spec = spec
        self._engine = engine
        self._workers = tuple(RpcWorker(address=each, local_endpoint=ends.get(each)) for each in addresses)
        # Our engine does not run while the workers are asked.
        self._probes = WorkerProbes(may_wait=True, may_release=True)
        self._accepted: set[str | None] = set()
        self._connections: WorkerConnections | None = None

    @classmethod
    def none(cls, spec: ServerSpec) -> RpcWorkers:
        """Return no workers: the server computes alone."""
        return cls(spec, Engine("", ()), ())

    def __bool__(self) -> bool:
        return bool(self._workers)

    @property
    def offered_bytes(self) -> int:
        """The memory of all workers' devices."""
        return sum(worker.total_bytes for worker in self._workers)

    def warn_of_exposure(self) -> None:
        """Say loudly that others may reach the workers, if they may."""
        sentence = exposure_sentence(worker.address for worker in self._workers)
        if sentence is not None:
            log.warning("%s", sentence)

    def wait_until_ready(self, reporter: StatusReporter, events: Events) -> None:
        """Return once all workers can be used, or a stop is requested. Entered, and left, in ``starting``.

        Raises StartError for an engine that knows no workers.
        """
        seconds, last_problem = FIRST_WAIT_SECONDS, None
        while self._workers and not events.stop_requested:
            problem = self._find_problem(events)
            if events.stop_requested:
                return
            reporter.set_rpc_workers(self._workers)
            if problem is None:
                break
            if problem != last_problem:
                log.warning("%s; waiting for it", problem)
                reporter.wait_for_worker(problem)
                last_problem = problem
            events.sleep(seconds)
            seconds = min(seconds * WAIT_GROWTH, MOST_WAIT_SECONDS)
        if reporter.state is State.BACKOFF and not events.stop_requested:
            log.info("all workers are there")
            reporter.enter(State.STARTING)

    def _find_problem(self, events: Events) -> str | None:
        """Ask all workers. Return why they cannot be used, or None."""
        self._workers = self._probes.probe(self._workers, events.poll_stop)
        problem = next((worker.problem for worker in self._workers if worker.problem is not None), None)
        versions = {worker.protocol for worker in self._workers}
        if problem is None and versions != self._accepted and not events.stop_requested:
            problem = refused_workers(self._engine, self._spec.environment(), events.poll_stop)
            if problem is None:
                self._accepted = versions
            else:
                self._workers = tuple(
                    replace(each, state=WorkerState.OTHER_VERSION, problem=problem) for each in self._workers
                )
        return problem

    def connected(self, pid: int, reporter: StatusReporter) -> None:
        """Take note of the connections that a server which has loaded its model has."""
        if not self._workers:
            return
        self._connections = WorkerConnections(pid, (worker.address for worker in self._workers))
        found = self._connections.look()
        ends = {worker: connection.local_endpoint for worker, connection in found.items()}
        self._workers = tuple(
            replace(each, state=WorkerState.IN_USE, local_endpoint=ends.get(each.address)) for each in self._workers
        )
        reporter.set_rpc_workers(self._workers)

    def disconnected(self, reporter: StatusReporter) -> None:
        """Take note that the server has ended."""
        self._connections = None
        if self._workers:
            self._workers = tuple(replace(each, state=WorkerState.UNKNOWN, problem=None) for each in self._workers)
            reporter.set_rpc_workers(self._workers)

    def loss(self) -> str | None:
        """Return that a worker has gone while the server runs, if one has; the server does not know it yet."""
        lost = None if self._connections is None else self._connections.lost_worker()
        return None if lost is None else f"worker {lost} has ended its connection"
