"""Builds of the bundled engine from an index of wheels: chosen, checked, tried, kept beside the CPU's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.downloads import continued_download, download_folder
from mistral_api.engine_builds.build_store import CPU, BuildStore, packaged_version
from mistral_api.engine_builds.devices import list_devices
from mistral_api.engine_builds.installation import Installed, Installer, NotInstalled
from mistral_api.engine_builds.machine import Machine
from mistral_api.engine_builds.variants import Kind
from mistral_api.engine_builds.wheel_index import WheelIndex
from mistral_api.hardware.nvml import NvidiaDriver
from tests.support.engine_wheels import CARD, EngineIndex, engine_index
from tests.support.model_pulls import RecordingDisplay

RTX_3050 = NvidiaDriver("570.00", (12, 8), (("NVIDIA GeForce RTX 3050", (8, 6)),))
WITH_CARD = Machine("Linux", "x86_64", (2, 36), RTX_3050)


@pytest.fixture
def index() -> Iterator[EngineIndex]:
    with engine_index() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continued_download, "PAUSES", (0.0,))


def _install(index: EngineIndex, data_dir: Path, kind: Kind = Kind.AUTO, machine: Machine = WITH_CARD) -> Installed:
    return Installer(BuildStore(data_dir), WheelIndex(index.url), RecordingDisplay()).install(kind, machine)


def _left(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "engines").glob("*") if path.name != ".pull")


def test_card_gets_its_build_and_the_engine_computes_on_it(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu128", packaged_version(), filling=100_000)
    installed = _install(index, tmp_path)
    assert (installed.build.variant, [device.name for device in installed.devices]) == ("cu128", [CARD])
    chosen = BuildStore(tmp_path).chosen()
    assert chosen == installed.build
    assert [device.id for device in list_devices(chosen.folder)] == ["CUDA0"]
    assert list_devices(None) == []
    assert _left(tmp_path) == ["choice.json", f"xllamacpp-{packaged_version()}-cu128"]


def test_build_that_is_there_is_not_fetched_again(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu128", packaged_version())
    first = _install(index, tmp_path)
    asked = len(index.requests)
    assert _install(index, tmp_path, Kind.CUDA) == first
    assert len(index.requests) == asked
    assert _install(index, tmp_path, Kind.CPU).build.variant == CPU
    assert _left(tmp_path) == ["choice.json"]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("wrong-hash", r"does not have the SHA-256 that 127\.0\.0\.1:\d+ gives for it"),
        ("no-hash", "Nobody states the SHA-256 of xllamacpp-.*, so it is not installed"),
        ("broken", "answered with status 503"),
        ("page", "is no wheel"),
    ],
)
def test_index_that_misbehaves_leaves_the_cpu(index: EngineIndex, tmp_path: Path, fault: str, sentence: str) -> None:
    index.faults = {fault}
    index.add("cu128", packaged_version())
    _expect_refusal(index, tmp_path, sentence)


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        ("crashes", "signal 6|exit code"),
        ("finds-no-card", "it starts and finds no card"),
        ("needs-library", "xllamacpp cannot be loaded.*libcudart"),
    ],
)
def test_build_that_does_not_start_leaves_the_cpu(
    index: EngineIndex, tmp_path: Path, behaviour: str, sentence: str
) -> None:
    index.add("cu128", packaged_version(), behaviour)
    _expect_refusal(index, tmp_path, sentence)


def test_wheel_of_another_version_is_none(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu128", "2026.1.1")
    _expect_refusal(index, tmp_path, f"has no xllamacpp {packaged_version()} \\(cu128\\)")


def _expect_refusal(index: EngineIndex, data_dir: Path, sentence: str) -> None:
    """Nothing is installed, nothing is left of the attempt, and it is not due again."""
    with pytest.raises(NotInstalled, match=sentence):
        _install(index, data_dir)
    store = BuildStore(data_dir)
    assert store.chosen().variant == CPU
    assert re.search(sentence, store.choice().problem)
    assert not store.is_due()
    assert _left(data_dir) == ["choice.json"]
    assert not list((data_dir / "engines" / ".pull").glob("*.part"))


def test_index_that_is_away_is_asked_once(tmp_path: Path) -> None:
    display = RecordingDisplay()
    installer = Installer(BuildStore(tmp_path), WheelIndex("http://127.0.0.1:9"), display)
    machine = Machine("Linux", "x86_64", (2, 36), NvidiaDriver("610.0", (13, 2), RTX_3050.cards))
    with pytest.raises(NotInstalled, match=r"^127\.0\.0\.1:9 cannot be reached \(.*does it need HTTPS_PROXY\?$"):
        installer.install(Kind.AUTO, machine)
    assert display.sentences == ["NVIDIA GeForce RTX 3050: looking for the engine's build cu132 at 127.0.0.1:9 ..."]


def test_card_that_no_build_runs_on_is_said_and_no_card_is_not(index: EngineIndex, tmp_path: Path) -> None:
    old = Machine("Linux", "x86_64", (2, 36), NvidiaDriver("470.0", (11, 4), RTX_3050.cards))
    with pytest.raises(NotInstalled, match=r"it needs a driver for CUDA 12\.0, and 470\.0 is for 11\.4"):
        _install(index, tmp_path, machine=old)
    assert _install(index, tmp_path, machine=Machine("Linux", "x86_64", (2, 36))).build.variant == CPU
    assert BuildStore(tmp_path).choice().problem == ""
    assert index.requests == []


def test_build_in_use_stays_until_the_engine_is_started_again(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu128", packaged_version())
    _install(index, tmp_path)
    store = BuildStore(tmp_path)
    Installer(store, WheelIndex(index.url), RecordingDisplay(), in_use=True).install(Kind.CPU, WITH_CARD)
    assert store.chosen().variant == CPU
    assert len(store.installed()) == 1
    store.remove_unused()
    assert store.installed() == []


def test_disk_without_room_for_the_build_is_named(
    index: EngineIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("cu128", packaged_version(), filling=1_000_000)
    free = shutil.disk_usage(tmp_path)._replace(free=download_folder.SPARE_BYTES + 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    _expect_refusal(index, tmp_path, "are still to come, but the disk of .* has 256.0 MiB free")


def test_interrupted_download_goes_on_where_it_was(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu128", packaged_version(), filling=1_000_000)
    index.faults = {"cut"}
    _install(index, tmp_path)
    first, second = index.ranges()
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 400_000


def test_next_best_variant_is_tried_where_the_best_does_not_start(index: EngineIndex, tmp_path: Path) -> None:
    index.add("cu132", packaged_version(), "crashes")
    index.add("cu128", packaged_version())
    machine = Machine("Linux", "x86_64", (2, 36), NvidiaDriver("610.0", (13, 2), RTX_3050.cards))
    assert _install(index, tmp_path, Kind.AUTO, machine).build.variant == "cu128"
