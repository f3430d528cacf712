"""The build for the card is installed before the engine's first start: by the supervisor, from a local index."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mistral_api.engine_builds.build_store import CPU, BuildStore, Choice, packaged_version
from mistral_api.engine_builds.variants import Kind
from mistral_api.settings import load_settings
from mistral_api.supervisor import engine_choice, process
from mistral_api.supervisor.engine import choose_engine
from mistral_api.supervisor.engine_choice import EngineChoice
from mistral_api.supervisor.events import Events
from mistral_api.system.processes import identity_of, is_alive
from tests.support.engine_wheels import CARD, EngineIndex, engine_index, install_build
from tests.support.fake_nvml import FakeNvml
from tests.support.processes import clean_environment, launch_server, processes_of, wait_for, wait_until_ready
from tests.support.supervisor_process import running_supervisor

linux = pytest.mark.skipif(sys.platform != "linux", reason="a library of ours takes the place of NVIDIA's")
OLD = "2026.1.1"


@pytest.fixture
def index() -> Iterator[EngineIndex]:
    with engine_index() as running:
        yield running
        running.faults.clear()


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    """NVIDIA's library with a card."""
    return FakeNvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def with_card(
    monkeypatch: pytest.MonkeyPatch,
    nvml: FakeNvml,
    index: EngineIndex,
    data_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A machine with a card, for the process that installs; this one need only believe it."""
    for name, value in (clean_environment() | nvml.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    monkeypatch.setenv("ENGINE_INDEX_URL", index.url)
    monkeypatch.setattr(engine_choice, "may_have_card", lambda: True)
    monkeypatch.setattr(engine_choice, "WAIT_SECONDS", 60.0)
    caplog.set_level(logging.INFO)


class Waits:
    """Counts the calls by which a choice says that it takes time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        """Count."""
        self.count += 1


def _choose(events: Events | None = None, asked: Kind | None = None) -> int:
    """Make the choice as the supervisor does; return how often it had to wait."""
    waits, choice = Waits(), EngineChoice(load_settings(), asked)
    try:
        choice.make(events or Events(), waits)
    finally:
        choice.close()
    return waits.count


@linux
@pytest.mark.usefixtures("with_card")
def test_card_gets_its_build_once_and_cpu_is_remembered(
    index: EngineIndex, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.add("cu128", packaged_version())
    assert _choose() == 1
    assert BuildStore(data_dir).chosen().variant == "cu128"
    assert f"xllamacpp {packaged_version()} (cu128) computes on {CARD} (CUDA0, 8.00 GiB)" in caplog.text
    assert "ERROR" not in caplog.text
    asked = len(index.requests)
    assert _choose() == 0
    assert _choose(asked=Kind.CPU) == 1
    assert _choose() == 0
    assert len(index.requests) == asked
    assert BuildStore(data_dir).choice() == Choice(Kind.CPU, CPU, packaged_version())
    assert [path.name for path in BuildStore(data_dir).folder.glob("xllama*")] == []


@linux
@pytest.mark.usefixtures("with_card")
def test_failure_is_one_loud_line_with_the_command_for_later(
    index: EngineIndex, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.faults = {"broken"}
    install_build(data_dir, version=OLD)
    assert _choose() == 1
    (loud,) = (record.getMessage() for record in caplog.records if record.levelno > logging.INFO)
    assert loud.startswith("the CPU computes, since no build of the engine for the card could be had: 127.0.0.1:")
    assert "answered with status 503" in loud
    assert "mistral-api engine install auto` tries it again" in loud
    assert BuildStore(data_dir).choice().variant == CPU
    # Neither the next start nor the index' return leads to another attempt; the old build is gone.
    index.faults.clear()
    assert _choose() == 0
    assert not list(BuildStore(data_dir).folder.glob("xllama*"))


@linux
@pytest.mark.usefixtures("with_card")
def test_what_the_command_warns_of_is_a_warning_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "2026-11-27T22:58:45.891Z WARNING a.b: the driver has not answered\n50 %\n2026-11-27 is a date"
    program = ([sys.executable, "-c", f"print({lines!r})"], dict(os.environ))
    monkeypatch.setattr(process, "without_launcher", lambda _command, _environment: program)
    _choose()
    said = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == engine_choice.__name__]
    assert said == [
        ("WARNING", "the driver has not answered"),
        ("INFO", "50 %"),
        ("INFO", "2026-11-27 is a date"),
    ]


@linux
@pytest.mark.usefixtures("with_card")
def test_build_of_another_version_is_replaced(index: EngineIndex, data_dir: Path) -> None:
    install_build(data_dir, version=OLD)
    index.add("cu128", packaged_version())
    assert _choose() == 1
    assert [build.version for build in BuildStore(data_dir).installed()] == [packaged_version()]


@pytest.mark.usefixtures("with_card")
def test_old_build_that_nothing_replaces_is_named(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    install_build(data_dir, version=OLD)
    engine = choose_engine(load_settings(), lambda: False)
    assert engine.build_folder is None
    assert f"the engine's build for the card has version {OLD} and the engine {packaged_version()}" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("GPU_LAYERS", "0"), ("LLAMA_SERVER_BIN", sys.executable), ("MODEL_SERVER_URL", "http://x")]
)
@pytest.mark.usefixtures("with_card")
def test_nothing_is_chosen_where_the_bundled_engine_uses_no_card(
    monkeypatch: pytest.MonkeyPatch, index: EngineIndex, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert _choose() == 0
    assert index.requests == []


@pytest.mark.usefixtures("with_card")
def test_nothing_is_chosen_without_a_driver(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setattr(engine_choice, "may_have_card", lambda: False)
    assert _choose() == 0
    assert not BuildStore(data_dir).folder.exists()


@pytest.mark.usefixtures("with_card")
def test_engine_of_the_command_line_has_no_effect_on_a_llama_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLAMA_SERVER_BIN", sys.executable)
    assert _choose(asked=Kind.CUDA) == 0
    assert "--engine cuda has no effect: a llama-server serves" in caplog.text


@linux
@pytest.mark.usefixtures("with_card")
def test_stop_ends_the_download_at_once_and_the_next_start_goes_on_with_it(
    index: EngineIndex, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.add("cu128", packaged_version(), filling=3_000_000)
    index.faults = {"stall"}
    events = Events()

    def stop_in_the_midst() -> None:
        wait_for(lambda: "50 %" in caplog.text, "half of the wheel")
        events.request_stop()

    stopping = threading.Thread(target=stop_in_the_midst)
    stopping.start()
    _choose(events)
    stopping.join(timeout=10)
    assert not processes_of(data_dir)
    assert "the CPU computes" not in caplog.text
    assert BuildStore(data_dir).is_due()
    index.faults.clear()
    _choose()
    assert BuildStore(data_dir).chosen().variant == "cu128"
    last = index.ranges()[-1]
    assert last is not None
    assert int(last.removeprefix("bytes=").rstrip("-")) > 1_000_000


@linux
@pytest.mark.usefixtures("with_card")
def test_slow_network_does_not_keep_the_model_waiting_for_ever(
    monkeypatch: pytest.MonkeyPatch, index: EngineIndex, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_choice, "WAIT_SECONDS", 0.0)
    index.add("cu128", packaged_version())
    choice = EngineChoice(load_settings(), None)
    choice.make(Events(), Waits())
    assert "is still being fetched after 0 s, so the CPU computes" in caplog.text
    wait_for(lambda: "restart the server to use that build" in caplog.text, "its end")
    choice.close()
    assert BuildStore(data_dir).chosen().variant == "cu128"


@linux
@pytest.mark.usefixtures("with_card")
def test_installation_ends_with_the_supervisor_that_was_killed(index: EngineIndex, data_dir: Path) -> None:
    index.add("cu128", packaged_version(), filling=1_000_000)
    index.faults = {"stall"}
    with subprocess.Popen([sys.executable, "-m", "mistral_api.supervisor"], env=os.environ) as supervisor:
        wait_for(lambda: list((data_dir / "engines" / ".pull").glob("*.part")), "a beginning of the wheel")
        children = [identity_of(each.pid) for each in processes_of(data_dir) if each.pid != supervisor.pid]
        supervisor.kill()
    assert children
    wait_for(lambda: not any(is_alive(each) for each in children), "the end of the installation")


@linux
@pytest.mark.parametrize(
    ("behaviour", "restarts", "reason"),
    [
        ("crashes-at-load", 2, "signal 6 while it was loading: CUDA error: no kernel image is available"),
        pytest.param("needs-library", 1, "exit code 2 while it was loading: error: xllamacpp", marks=pytest.mark.slow),
    ],
)
def test_build_that_fails_later_leaves_the_cpu(data_dir: Path, behaviour: str, restarts: int, reason: str) -> None:
    install_build(data_dir, behaviour)
    with running_supervisor(data_dir, CONTEXT_SIZE="1024") as running:
        status = running.wait_ready(restarts=None)
        assert status.engine_version == f"xllamacpp {packaged_version()}"
        assert status.restarts == restarts
        log = (data_dir / "logs" / "supervisor.log").read_text()
    assert log.count(f"cannot serve here, so the CPU's does: the model server ended with {reason}") == 1
    assert "mistral-api engine install KIND` chooses another build" in log


@linux
@pytest.mark.slow
def test_build_that_crashes_again_and_again_leaves_the_cpu(data_dir: Path) -> None:
    install_build(data_dir, "works")
    with running_supervisor(data_dir, CONTEXT_SIZE="1024", MAX_RESTARTS="1") as running:
        for restarts in (0, 1):
            status = running.wait_ready(restarts)
            assert status.engine_version == f"xllamacpp {packaged_version()} (cu128)"
            assert status.pid is not None
            os.kill(status.pid, signal.SIGKILL)
        on_cpu = running.wait_ready(restarts=2)
        assert on_cpu.engine_version == f"xllamacpp {packaged_version()}"
        # The processor's build has restarts of its own.
        assert on_cpu.pid is not None
        os.kill(on_cpu.pid, signal.SIGKILL)
        running.wait_ready(restarts=3)


@linux
@pytest.mark.slow
def test_serve_takes_the_build_for_the_card_by_itself(nvml: FakeNvml, index: EngineIndex, data_dir: Path) -> None:
    index.add("cu128", packaged_version(), filling=1_000_000)
    index.faults = {"cut"}
    settings = {"ENGINE_INDEX_URL": index.url, "CONTEXT_SIZE": "1024", **nvml.environment}
    environment = clean_environment(DATA_DIR=str(data_dir), **settings)
    command = [sys.executable, "-m", "mistral_api.cli", "engine"]

    def engine(*words: str) -> str:
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    with launch_server(data_dir, **settings) as server:
        wait_until_ready(server)
        assert f"(cu128) computes on {CARD} (CUDA0, 8.00 GiB)" in server.log()
        health = requests.get(f"{server.url}/health", timeout=10).json()
        assert health["model_server"]["engine_version"] == f"xllamacpp {packaged_version()} (cu128)"
        assert CARD in engine("show")
        # The build in use stays until the server is started again.
        assert "(cpu) computes on the processor once the server is started again" in engine("install", "cpu")
        assert BuildStore(data_dir).installed()
        assert server.stop() == 0
    assert len(index.ranges()) == 2
    with launch_server(data_dir, "--engine", "cpu", **settings) as server:
        wait_until_ready(server)
        assert not BuildStore(data_dir).installed()
        assert "the processor" in engine("show")


def test_serve_refuses_an_engine_that_it_does_not_run(data_dir: Path) -> None:
    environment = clean_environment(DATA_DIR=str(data_dir))
    command = [sys.executable, "-m", "mistral_api.serving", "--api-only", "--engine", "cuda"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--engine: this process does not run the engine: with --api-only bin/supervisor runs it.\n"
