"""Asks workers how they are: all of them at once, each in a thread, since looking a name up has no deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from mistral_api.control.rpc_workers import RpcWorker, WorkerAddress, WorkerState
from mistral_api.supervisor.rpc_protocol import Greeting, WorkerAway, WorkerBusy, WorkerIncompatible, greet

GREETING_SECONDS = 3.0
# Two greetings, the first from the port of a connection that the worker still believes in.
PROBE_SECONDS = 2 * GREETING_SECONDS + 1.0
# A worker that has been switched off meanwhile never answers.
MOST_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


class WorkerProbes:
    """The probes of one model server's workers.

    A probe that a busy worker has not answered goes on between two calls, since a connection that is closed meanwhile
    may end the worker (``greet``). It ends with the answer, after MOST_WAIT_SECONDS, or
    with this process.
    """

    def __init__(self, *, may_wait: bool, may_release: bool) -> None:
        """``may_wait``: whether probes may go on.

        ``may_release``: whether a connection that a dead engine of ours has left may be taken from a worker; only
        whoever knows that the engine is dead says so.
        """
        self._may_wait = may_wait
        self._may_release = may_release
        self._running: dict[WorkerAddress, _Probe] = {}

    def probe(self, workers: Sequence[RpcWorker], stop_requested: Callable[[], bool]) -> tuple[RpcWorker, ...]:
        """Return the workers as they are now, after PROBE_SECONDS at the latest.

        Not for workers that our own engine is connected to: they would answer nobody else. ``stop_requested``: ends
        the wait early where it returns true.
        """
        for worker in workers:
            if worker.address not in self._running:
                self._running[worker.address] = _Probe(worker, may_wait=self._may_wait, may_release=self._may_release)
        probes = [self._running[worker.address] for worker in workers]
        deadline = time.monotonic() + PROBE_SECONDS
        while not all(probe.is_answered for probe in probes) and time.monotonic() < deadline and not stop_requested():
            time.sleep(_POLL_SECONDS)
        found = tuple(probe.result() for probe in probes)
        self._running = {address: probe for address, probe in self._running.items() if not probe.has_ended}
        return _require_one_version(found)


def probe_workers(workers: Sequence[RpcWorker]) -> tuple[RpcWorker, ...]:
    """Return the workers as they are now, once."""
    return WorkerProbes(may_wait=False, may_release=False).probe(workers, lambda: False)


class _Probe:
    """One worker's probe in its thread. A thread that looks up a name for long ends by itself, heard by nobody."""

    def __init__(self, worker: RpcWorker, *, may_wait: bool, may_release: bool) -> None:
        self._worker = worker
        self._may_wait = may_wait
        self._may_release = may_release
        self._result: RpcWorker | None = None
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="rpc-probe", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = _usable(self._worker, self._greet())
        except WorkerAway as error:
            self._result = _unusable(self._worker, WorkerState.AWAY, f"does not answer: {error}")
        except WorkerBusy:
            self._result = _busy(self._worker)
        except WorkerIncompatible as error:
            problem = f"does not speak ggml's RPC protocol as it is now: {error}; use the same build of llama.cpp there"
            self._result = _unusable(self._worker, WorkerState.OTHER_VERSION, problem)

    def _greet(self) -> Greeting:
        """Greet the worker, from the address and port of the connection that a dead engine of ours had, if it had one.

        While the network was cut the worker has not heard of the engine's end, and would wait for its next command
        for ever. A connection from the same address and port is a contradiction for its system, which then asks, is
        told that the old one is no more, and ends it (RFC 9293, 3.5.1, "Half-Open Connections").
        """
        if self._worker.local_endpoint is not None and self._may_release:
            host, _, port = self._worker.local_endpoint.rpartition(":")
            # Where it fails: our own system still has the old connection, and is telling the worker its end.
            with contextlib.suppress(WorkerAway, WorkerIncompatible):
                return greet(self._worker.address, GREETING_SECONDS, (host, int(port)), self._waits_on)
        return greet(self._worker.address, GREETING_SECONDS, may_wait=self._waits_on)

    def _waits_on(self) -> bool:
        """Report that the worker does not answer, and return whether to wait on."""
        self._result = _busy(self._worker)
        return self._may_wait and time.monotonic() - self._started_at < MOST_WAIT_SECONDS

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    @property
    def is_answered(self) -> bool:
        """Whether anything is known of the worker, or nothing more will be."""
        return self._result is not None or self.has_ended

    def result(self) -> RpcWorker:
        """Return what was found so far."""
        return self._result or _unusable(self._worker, WorkerState.AWAY, "does not answer")


def _busy(worker: RpcWorker) -> RpcWorker:
    problem = (
        "takes connections and answers none: another program uses it, or it hangs; "
        "end that program, or restart ggml-rpc-server there"
    )
    return _unusable(worker, WorkerState.BUSY, problem)


def _usable(worker: RpcWorker, greeting: Greeting) -> RpcWorker:
    return RpcWorker(
        address=worker.address,
        state=WorkerState.READY,
        protocol=".".join(map(str, greeting.version)),
        devices=len(greeting.memory),
        free_bytes=sum(free for free, _ in greeting.memory),
        total_bytes=sum(total for _, total in greeting.memory),
    )


def _unusable(worker: RpcWorker, state: WorkerState, problem: str) -> RpcWorker:
    return replace(worker, state=state, problem=f"worker {worker.address} {problem}")


def _require_one_version(workers: tuple[RpcWorker, ...]) -> tuple[RpcWorker, ...]:
    """Mark the workers whose version is another than that of most.

    ggml compares the first two numbers only. The third one changes with the operations that there are, which the
    machines tell each other by their number: with different ones they would compute something else without a word.
    """
    versions = Counter(worker.protocol for worker in workers if worker.state is WorkerState.READY)
    if len(versions) < 2:
        return workers
    common = versions.most_common(1)[0][0]
    return tuple(
        worker
        if worker.state is not WorkerState.READY or worker.protocol == common
        else _unusable(
            worker,
            WorkerState.OTHER_VERSION,
            f"speaks version {worker.protocol} of ggml's RPC protocol and others {common}; "
            "use the same build of llama.cpp on all machines",
        )
        for worker in workers
    )
