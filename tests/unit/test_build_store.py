"""The builds of the bundled engine in DATA_DIR, and which of them is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mistral_api.downloads.download_folder import exclusive_folder
from mistral_api.downloads.errors import DownloadError
from mistral_api.engine_builds import build_store
from mistral_api.engine_builds.build_store import CPU, Build, BuildStore, Choice, packaged_version
from mistral_api.engine_builds.variants import Kind
from tests.support.engine_wheels import install_build

OLD = "2026.1.1"


@pytest.fixture
def store(tmp_path: Path) -> BuildStore:
    return BuildStore(tmp_path)


def _names(store: BuildStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".pull")


def test_nothing_was_chosen_at_first(store: BuildStore) -> None:
    assert store.chosen() == Build(CPU, packaged_version())
    assert store.choice() == Choice()
    assert store.is_due()
    assert store.outdated() is None
    store.remove_unused()
    assert not store.folder.exists()


def test_chosen_build_is_started_and_the_choice_is_made_once(store: BuildStore, tmp_path: Path) -> None:
    folder = install_build(tmp_path)
    assert store.chosen() == Build("cu128", packaged_version(), folder)
    assert not store.is_due()


@pytest.mark.parametrize("choice", [Choice(Kind.CPU), Choice(Kind.CPU, CPU, OLD)])
def test_cpu_is_never_chosen_again(store: BuildStore, choice: Choice) -> None:
    store.remember(choice)
    assert not store.is_due()


def test_failure_is_remembered_until_there_is_another_version(store: BuildStore) -> None:
    failed = Choice(Kind.CUDA, CPU, packaged_version(), "the index is away")
    store.remember(failed)
    assert store.choice() == failed
    assert not store.is_due()
    store.remember(Choice(Kind.CUDA, CPU, OLD, "the index is away"))
    assert store.is_due()


def test_build_of_another_version_is_not_started_and_goes_with_the_next(store: BuildStore, tmp_path: Path) -> None:
    old = install_build(tmp_path, version=OLD)
    assert store.chosen().variant == CPU
    assert store.outdated() == Build("cu128", OLD, old)
    assert store.is_due()
    new = install_build(tmp_path)  # the old one stays, as where an engine uses it
    assert store.chosen() == Build("cu128", packaged_version(), new)
    assert store.outdated() is None
    store.remove_unused()
    assert _names(store) == ["choice.json", new.name]


def test_nothing_is_removed_while_an_installation_is_at_work(store: BuildStore, tmp_path: Path) -> None:
    install_build(tmp_path, version=OLD)
    with exclusive_folder(store.folder), pytest.raises(DownloadError, match="is at work"):
        store.remove_unused()
    assert f"xllamacpp-{OLD}-cu128" in _names(store)


def test_build_in_use_stays_whole_until_it_can_be_removed(
    store: BuildStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install_build(tmp_path)
    store.remember(Choice(Kind.CPU, CPU, packaged_version()))

    def refuse(_source: Path, _target: Path) -> None:
        raise PermissionError("it is in use")  # as Windows does where one of its files is mapped

    with monkeypatch.context() as patched:
        patched.setattr(build_store, "move_file", refuse)
        store.remove_unused()
    assert (folder / "xllamacpp" / "__init__.py").exists()
    store.remove_unused()
    assert _names(store) == ["choice.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"asked": "steam", "variant": "cpu"}', '{"asked": "auto"}'])
def test_file_that_makes_no_sense_is_no_choice(store: BuildStore, text: str, caplog: pytest.LogCaptureFixture) -> None:
    store.folder.mkdir()
    (store.folder / "choice.json").write_text(text)
    assert store.choice() == Choice()
    assert "so the engine computes on the CPU" in caplog.text


def test_file_that_makes_no_sense_is_named_once(store: BuildStore, caplog: pytest.LogCaptureFixture) -> None:
    store.folder.mkdir()
    (store.folder / "choice.json").write_text("{")
    for _ in range(3):
        assert store.choice() == Choice()
    assert caplog.text.count("cannot be read") == 1


def test_choice_of_a_file_without_a_version_is_due(store: BuildStore) -> None:
    store.folder.mkdir()
    (store.folder / "choice.json").write_text(json.dumps({"asked": "cuda", "variant": "cu128"}))
    assert store.choice() == Choice(Kind.CUDA, "cu128")
    assert store.is_due()


def test_what_an_interrupted_installation_has_unpacked_is_removed_by_the_next(store: BuildStore) -> None:
    (store.folder / ".unpack-left").mkdir(parents=True)
    with store.unpacking() as folder:
        assert _names(store) == [folder.name]
    assert _names(store) == []
