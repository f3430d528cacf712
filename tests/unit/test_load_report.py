"""What a model server says of its load, read from its own lines."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from mistral_api.control.placement import DeviceShare, Placement
from mistral_api.supervisor.load_report import LoadReport, verbosity_of
from mistral_api.supervisor.output_filter import is_trace
from mistral_api.supervisor.process import OutputLog
from mistral_api.system.byte_sizes import MIB
from tests.support import load_lines

RTX = "NVIDIA GeForce RTX 3050"


def _placement(text: str) -> Placement:
    report = LoadReport()
    for line in text.splitlines():
        report.read_line(line)
    return report.placement()


def test_processor_that_computes_is_named_whatever_layers_were_asked_for() -> None:
    placement = _placement(load_lines.ON_PROCESSOR)
    assert (placement.device, placement.gpu_layers, placement.devices) == ("cpu", 0, [])
    assert placement.main_memory_bytes == round(92.10 * MIB) + round(0.38 * MIB) + 45 * MIB + round(1.96 * MIB)
    assert (placement.context_size, placement.request_context_size, placement.unified_cache) == (2048, 1024, False)
    assert str(placement) == "on the processor, 139.4 MiB in main memory; context 2048, 1024 a request"


def test_layers_and_memory_on_a_card_are_those_of_the_real_load() -> None:
    placement = _placement(load_lines.ON_ONE_CARD)
    taken = round((2560.5 + 200 + 100 + 100) * MIB)
    assert placement.devices == [DeviceShare(id="CUDA0", name=RTX, memory_bytes=taken)]
    assert (placement.device, placement.gpu_layers, placement.layers) == (f"CUDA0 {RTX}", 20, 33)
    assert placement.main_memory_bytes == round((1500 + 0.5 + 100 + 20) * MIB)
    assert (placement.context_size, placement.request_context_size, placement.unified_cache) == (32768, 32768, True)
    words = f"on {RTX}, 20 of 33 layers, 2.89 GiB there, 1.58 GiB in main memory; context 32768, shared by all requests"
    assert str(placement) == words


def test_worker_of_another_machine_is_a_device_like_a_card() -> None:
    placement = _placement(load_lines.ON_TWO_DEVICES)
    assert placement.device == f"RPC0 10.0.0.2:50052, CUDA0 {RTX}"
    assert placement.describe_devices() == (
        f"on 10.0.0.2:50052 and {RTX}, 33 of 33 layers, 2.93 GiB on 10.0.0.2:50052 and 1000.0 MiB on {RTX}, "
        "70.0 MiB in main memory"
    )


def test_card_with_room_for_computing_alone_is_not_what_computes() -> None:
    placement = _placement(load_lines.ROOM_ON_A_CARD)
    assert (placement.device, placement.gpu_layers, placement.layers) == ("cpu", 0, 33)
    assert [device.memory_bytes for device in placement.devices] == [300 * MIB]
    assert placement.describe_devices().endswith(f"300.0 MiB on {RTX} for long prompts")
    assert placement.describe_context() == "context unknown"


def test_older_build_is_understood_as_far_as_it_goes() -> None:
    placement = _placement(load_lines.OF_AN_OLDER_BUILD)
    assert (placement.device, placement.gpu_layers, placement.context_size) == (f"CUDA0 {RTX}", 33, 8192)
    assert (placement.request_context_size, placement.unified_cache) == (2048, None)


def test_words_that_nobody_knows_are_not_guessed_at() -> None:
    placement = _placement("loading 33 layers onto the card\nthe context is 4096\n")
    assert placement == Placement()
    assert (placement.device, placement.is_known) == (None, False)


@pytest.mark.parametrize(
    ("engine", "version", "environment", "variables"),
    [
        ("llama-server", "11549 (abcdef0)", {}, {"LLAMA_ARG_LOG_VERBOSITY": "4"}),
        ("llama-server", "0.6.0-dev (build 11434, commit unknown)", {}, {"LLAMA_ARG_LOG_VERBOSITY": "4"}),
        ("llama-server", "11549 (abcdef0)", {"LLAMA_ARG_LOG_FILE": "engine.log"}, {}),
        ("llama-server", "7226 (abcdef0)", {}, {}),  # there 4 is what each token does
        ("llama-server", None, {}, {}),
        ("bundled", "xllamacpp 2026.10.11549", {}, {}),
    ],
)
def test_llama_server_is_told_to_print_its_load_where_that_prints_nothing_else(
    engine: str, version: str | None, environment: dict[str, str], variables: dict[str, str]
) -> None:
    assert verbosity_of(engine, version, environment) == variables


def test_lines_that_only_trace_a_request_are_known_from_others() -> None:
    assert all(map(is_trace, load_lines.TRACES.splitlines()))
    assert not any(map(is_trace, load_lines.OF_A_REQUEST.splitlines()))
    assert not is_trace("0.00.1.107 W slot process_sing: id  0 | task -1 | saving idle slot to prompt cache")


def test_load_is_read_from_the_output_until_requests_may_come(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "server.log")
    for keeps_traces in (False, True):
        output = _ReadyServer(log, load_lines.ON_PROCESSOR, load_lines.TRACES + load_lines.ON_ONE_CARD)
        log.follow(output, keeps_traces=keeps_traces).join(timeout=10)
        assert output.placement == _placement(load_lines.ON_PROCESSOR)
        assert any("all slots are idle" in line for line in log.lines()) is keeps_traces
    log.close()


class _ReadyServer(io.BytesIO):
    """The output of a server that is ready after its load."""

    def __init__(self, log: OutputLog, load: str, later: str) -> None:
        super().__init__(load.encode())
        self._log, self._later = log, [later.encode()]
        self.placement = Placement()

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if piece or not self._later:
            return piece
        self.placement = self._log.expect_requests()
        return self._later.pop()


def test_last_words_of_a_load_are_waited_for(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "server.log")
    lines = load_lines.ON_ONE_CARD.splitlines(keepends=True)
    output = _SlowServer(lines)
    thread = log.follow(output)
    assert output.is_read.wait(10)
    threading.Timer(0.05, output.release.set).start()
    assert log.expect_requests() == _placement(load_lines.ON_ONE_CARD)
    thread.join(timeout=10)
    log.close()


class _SlowServer(io.BytesIO):
    """An output whose last line comes when it is released."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("".join(lines[:-1]).encode())
        self._last = [lines[-1].encode()]
        self.is_read, self.release = threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if piece or not self._last:
            return piece
        self.is_read.set()
        self.release.wait(10)
        return self._last.pop()
