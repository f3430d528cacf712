"""The machines of LLAMA_ARG_RPC: their addresses, what they say of themselves, and what is said of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.control.rpc_workers import (
    RpcWorker,
    WorkerAddress,
    WorkerState,
    exposure_sentence,
    worker_addresses,
    worker_from_fields,
)
from mistral_api.control.server_spec import ServerSpec, main_server_spec
from mistral_api.control.status import BUNDLED
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.memory_shortage import MemoryShortage, find_shortage
from mistral_api.supervisor.output_filter import kept_part
from mistral_api.supervisor.rpc_probe import probe_workers
from mistral_api.supervisor.rpc_workers import names_lost_worker, require_usable_workers
from tests.support.rpc_worker import GIB, StandInWorker, stand_in_worker

# A port that nobody listens on.
NOBODY = "127.0.0.1:1"


def workers_of(*addresses: str) -> list[RpcWorker]:
    return [RpcWorker(address=each) for each in worker_addresses({"LLAMA_ARG_RPC": ",".join(addresses)})]


def probed(*addresses: str) -> tuple[RpcWorker, ...]:
    return probe_workers(workers_of(*addresses), lambda: False)


@pytest.mark.parametrize(
    "value",
    [
        "here",
        "here:",
        ":50052",
        "here:0",
        "here:65536",
        "here:x",
        "a:1,,b:1",
        "a:1, b:1",
        "[::1]:50052",
        "a:1,a:1",
        ",",
    ],
)
def test_address_that_llama_cpp_would_not_understand_is_one_sentence(value: str) -> None:
    with pytest.raises(StartError) as caught:
        worker_addresses({"LLAMA_ARG_RPC": value})
    assert str(caught.value).startswith("LLAMA_ARG_RPC: '")
    assert "\n" not in str(caught.value)


def test_more_workers_than_llama_cpp_takes_are_refused() -> None:
    with pytest.raises(StartError, match=r"17 workers are named; llama\.cpp takes 16"):
        worker_addresses({"LLAMA_ARG_RPC": ",".join(f"10.0.0.{number}:50052" for number in range(17))})


def test_addresses_are_read_and_an_empty_value_is_none() -> None:
    found = worker_addresses({"LLAMA_ARG_RPC": "gpu-2.lan:50052,10.0.0.3:50053"})
    assert found == (WorkerAddress("gpu-2.lan", 50052), WorkerAddress("10.0.0.3", 50053))
    assert worker_addresses({"LLAMA_ARG_RPC": " "}) == worker_addresses({}) == ()


def test_worker_says_its_version_and_the_memory_of_all_its_devices() -> None:
    with stand_in_worker((7, 0, 3), ((1 * GIB, 2 * GIB), (5 * GIB, 8 * GIB))) as standing:
        (found,) = probed(standing.address)
        request = standing.received
    assert (found.state, found.problem, found.protocol) == (WorkerState.READY, None, "7.0.3")
    assert (found.devices, found.free_bytes, found.total_bytes) == (2, 6 * GIB, 10 * GIB)
    assert found.describe() == (f"{standing.address} ready, 2 devices, 6.00 GiB of 10.00 GiB offered, protocol 7.0.3")
    # HELLO with no transport but TCP, the number of devices, and the memory of each.
    hello = b"\x0e\x18" + bytes(7) + bytes(24)
    count = b"\x0f" + bytes(8)
    memory = [b"\x0b\x04" + bytes(7) + bytes([device, 0, 0, 0]) for device in range(2)]
    assert request == hello + count + b"".join(memory)


def test_worker_is_written_to_the_status_file_and_read_again() -> None:
    with stand_in_worker() as standing:
        (found,) = probed(standing.address)
    assert worker_from_fields(found.fields()) == found


def test_worker_that_nobody_started_is_away() -> None:
    (found,) = probed(NOBODY)
    assert found.state is WorkerState.AWAY
    assert (found.problem or "").startswith(f"worker {NOBODY} does not answer: ")


@pytest.fixture
def busy_worker() -> Iterator[StandInWorker]:
    """A worker that another program is connected to."""
    with stand_in_worker() as standing, socket.create_connection(("127.0.0.1", standing.port)):
        yield standing


def test_worker_of_another_program_is_busy_and_not_disturbed(
    busy_worker: StandInWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_api.supervisor.rpc_probe.GREETING_SECONDS", 0.3)
    (found,) = probed(busy_worker.address)
    assert found.state is WorkerState.BUSY
    assert "another program uses it, or it hangs" in (found.problem or "")
    assert busy_worker.received == b""


def test_program_that_is_no_worker_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(10)
        address = f"127.0.0.1:{port}"
        workers = workers_of(address)

        def answer() -> bool:
            """Answer as a web server does, and request no stop."""
            try:
                listener.setblocking(False)
                connection, _ = listener.accept()
            except OSError:
                return False
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()
            return False

        (found,) = probe_workers(workers, answer)
    assert found.state is WorkerState.OTHER_VERSION
    assert "does not speak ggml's RPC protocol as it is now" in (found.problem or "")


def test_worker_of_another_build_than_most_is_refused() -> None:
    with stand_in_worker() as first, stand_in_worker() as second, stand_in_worker((7, 0, 1)) as third:
        found = probed(first.address, third.address, second.address)
    assert [worker.state for worker in found] == [WorkerState.READY, WorkerState.OTHER_VERSION, WorkerState.READY]
    assert "speaks version 7.0.1 of ggml's RPC protocol and others 7.0.0" in (found[1].problem or "")


def spec(tmp_path: Path) -> ServerSpec:
    return main_server_spec(Settings(data_dir=tmp_path))


def test_bundled_engine_does_not_compute_alone_where_workers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_RPC", "10.0.0.2:50052")
    with pytest.raises(StartError, match="LLAMA_ARG_RPC: the bundled engine cannot compute on other machines"):
        require_usable_workers(spec(tmp_path), Engine(BUNDLED, ()))
    assert require_usable_workers(spec(tmp_path), Engine("llama-server", ())) == (WorkerAddress("10.0.0.2", 50052),)


def test_two_model_servers_do_not_share_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_RPC", "10.0.0.2:50052,10.0.0.3:50052")
    monkeypatch.setenv("EMBEDDING_LLAMA_ARG_RPC", "10.0.0.3:50052")
    other = ServerSpec(
        name="embedding-server", settings=Settings(data_dir=tmp_path), path_setting="EMBEDDING_MODEL_PATH",
        port_setting="EMBEDDING_SERVER_PORT", variable_prefix="EMBEDDING_LLAMA_ARG_",
    )  # fmt: skip
    with pytest.raises(
        StartError, match=r"EMBEDDING_LLAMA_ARG_RPC: the worker 10\.0\.0\.3:50052 computes for the main"
    ):
        require_usable_workers(other, Engine("llama-server", ()))


def test_only_workers_that_others_may_reach_are_warned_of() -> None:
    assert exposure_sentence(worker_addresses({"LLAMA_ARG_RPC": "127.0.0.1:1,localhost:2,127.9.9.9:3"})) is None
    sentence = exposure_sentence(worker_addresses({"LLAMA_ARG_RPC": "127.0.0.1:1,10.0.0.2:50052"}))
    assert sentence is not None
    assert sentence.startswith("10.0.0.2:50052: a worker's port has no protection")


def test_end_of_an_engine_that_lost_a_worker_is_known_by_its_words() -> None:
    line = "/llama.cpp/ggml/src/ggml-rpc/ggml-rpc.cpp:527: Remote RPC server crashed or returned malformed response"
    assert names_lost_worker([kept_part(line)])
    assert not names_lost_worker(["srv  update_slots: all slots are idle"])


def test_worker_without_enough_memory_is_a_want_of_device_memory() -> None:
    line = "alloc_tensor_range: failed to allocate RPC0[10.0.0.2:50052] buffer of size 4294967296"
    assert find_shortage([line], uses_device=True) is MemoryShortage.DEVICE
