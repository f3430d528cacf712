"""Other machines that compute a part of a model: llama.cpp's ``ggml-rpc-server``, named by ``LLAMA_ARG_RPC``.

Sources: llama.cpp, common/arg.cpp (``--rpc``: endpoints with commas between them), ggml/src/ggml-rpc/ggml-rpc.cpp (an
endpoint is split at its first colon, so there is no IPv6 address) and ggml/include/ggml-rpc.h (GGML_RPC_MAX_SERVERS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from mistral_api.errors import StartError
from mistral_api.system.addresses import is_loopback
from mistral_api.system.byte_sizes import format_size

RPC_VARIABLE = "LLAMA_ARG_RPC"
MOST_WORKERS = 16
_ENDPOINT = re.compile(r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>[1-9][0-9]{0,4})", re.ASCII)
# Half a sentence; the workers' addresses stand before it.
UNPROTECTED = (
    "a worker's port has no protection: whoever reaches it reads the prompts, and may run code there; "
    "let nobody but this machine reach it"
)


class WorkerState(StrEnum):
    """What is known of a worker: not asked yet, free for us, used by our engine, or why it cannot be used."""

    UNKNOWN = "not asked yet"
    READY = "ready"
    IN_USE = "in use"
    AWAY = "away"
    BUSY = "busy"
    OTHER_VERSION = "other version"


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host.lower())


class WorkerHealth(TypedDict):
    """A worker in ``/health``. Memory is in bytes, over all of its devices."""

    address: str
    state: str
    problem: str | None
    protocol: str | None
    devices: int
    free_bytes: int
    total_bytes: int


class WorkerFields(WorkerHealth):
    """A worker in the status file."""

    local_endpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcWorker:
    """A worker as it was seen last.

    ``problem``: why it cannot be used, as a sentence without its full stop. ``protocol``: the version of ggml's
    protocol. ``free_bytes`` and ``total_bytes``: the memory of its devices before our engine had any of it.
    ``local_endpoint``: this machine's end of the engine's connection (``10.0.0.1:43210``), by which the worker can be
    made to let go of it when it has not heard that the engine is gone.
    """

    address: WorkerAddress
    state: WorkerState = WorkerState.UNKNOWN
    problem: str | None = None
    protocol: str | None = None
    devices: int = 0
    free_bytes: int = 0
    total_bytes: int = 0
    local_endpoint: str | None = None

    def describe(self) -> str:
        """Return it in one line: where it is, how it is, and what it offers."""
        known = [f"{self.address} {self.state}"]
        if self.total_bytes:
            devices = "1 device" if self.devices == 1 else f"{self.devices} devices"
            known.append(f"{devices}, {format_size(self.free_bytes)} of {format_size(self.total_bytes)} offered")
        if self.protocol:
            known.append(f"protocol {self.protocol}")
        return ", ".join(known)

    def health(self) -> WorkerHealth:
        """Return what ``/health`` says of it."""
        return {
            "address": str(self.address),
            "state": self.state.value,
            "problem": self.problem,
            "protocol": self.protocol,
            "devices": self.devices,
            "free_bytes": self.free_bytes,
            "total_bytes": self.total_bytes,
        }

    def fields(self) -> WorkerFields:
        """Return it for the status file."""
        return {**self.health(), "local_endpoint": self.local_endpoint}


def worker_from_fields(fields: WorkerFields) -> RpcWorker:
    """Read what :meth:`RpcWorker.fields` returned. Raises KeyError, TypeError or ValueError for anything else."""
    (address,) = parse_endpoints(fields["address"], RPC_VARIABLE)
    return RpcWorker(
        address=address,
        state=WorkerState(fields["state"]),
        problem=fields["problem"],
        protocol=fields["protocol"],
        devices=fields["devices"],
        free_bytes=fields["free_bytes"],
        total_bytes=fields["total_bytes"],
        local_endpoint=fields["local_endpoint"],
    )


def worker_addresses(environment: Mapping[str, str], variable: str = RPC_VARIABLE) -> tuple[WorkerAddress, ...]:
    """Return the workers of a model server with this environment; none where it computes alone.

    ``variable``: what errors call it. Raises StartError for what llama.cpp would not understand.
    """
    value = environment.get(RPC_VARIABLE, "")
    return parse_endpoints(value, variable) if value.strip() else ()


def parse_endpoints(value: str, variable: str) -> tuple[WorkerAddress, ...]:
    """Read ``host:port,host:port``. Raises StartError."""
    addresses = tuple(_parse_endpoint(each, variable) for each in value.split(","))
    if len(set(addresses)) < len(addresses):
        raise StartError(f"{variable}: '{value}' names a worker twice; each one once.")
    if len(addresses) > MOST_WORKERS:
        raise StartError(f"{variable}: {len(addresses)} workers are named; llama.cpp takes {MOST_WORKERS} at most.")
    return addresses


def _parse_endpoint(text: str, variable: str) -> WorkerAddress:
    found = _ENDPOINT.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise StartError(
            f"{variable}: '{text}' is no host:port of a worker; give names or IPv4 addresses with commas and no "
            "spaces between them, such as 10.0.0.2:50052,10.0.0.3:50052."
        )
    return WorkerAddress(found["host"], int(found["port"]))


def exposed_addresses(workers: Iterable[WorkerAddress]) -> str | None:
    """Return the workers that others may reach, with commas between them; None where all are on this machine."""
    return ", ".join(str(worker) for worker in workers if not worker.is_loopback) or None


def exposure_sentence(workers: Iterable[WorkerAddress]) -> str | None:
    """Return the warning about workers that others may reach; None where all of them are on this machine."""
    exposed = exposed_addresses(workers)
    return None if exposed is None else f"{exposed}: {UNPROTECTED} (docs/scale.md, 'Fence the workers')"
