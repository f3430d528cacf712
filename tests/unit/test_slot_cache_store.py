"""The folder of saved caches: only complete and allowed files count, and the disk is never filled."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mistral_api.control.feedback import FinishedGeneration
from mistral_api.control.saved_caches import (
    LIST_FILE,
    CacheFolder,
    SavedCache,
    conversation_key,
    delete_unused,
    mark_deleted,
    slots_folder,
)
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import Slot
from mistral_api.supervisor.slot_cache_store import CacheCandidate, CacheStore

ANN, BOB = conversation_key("local", "ann"), conversation_key("local", "bob")
DAY = 86400.0


def _store(data_dir: Path, fingerprint: str = "same", **settings: Any) -> CacheStore:
    made = CacheStore(Settings(data_dir=data_dir, **settings), fingerprint)
    made.open()
    return made


def _add(store: CacheStore, conversation: str, content: bytes = b"cache", **fields: Any) -> SavedCache:
    """Save a cache as a save round does."""
    name = store.folder.new_name(conversation)
    (store.folder.path / name).write_bytes(content)
    size, digest = store.folder.measure(name, time.monotonic() + 10)
    values: dict[str, Any] = {"seed": 1, "tokens": 5, "used_at": time.time()} | fields
    cache = SavedCache(conversation=conversation, file=name, bytes=size, digest=digest, **values)
    store.add(cache)
    return cache


def _files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in slots_folder(data_dir).iterdir())


def _candidate(conversation: str, tokens: int) -> CacheCandidate:
    return CacheCandidate(conversation, tokens, 1.0, True, None, Slot(0, False, 2, tokens), 2)


def test_saved_cache_is_found_by_the_next_run_and_partial_files_are_deleted(tmp_path: Path) -> None:
    store = _store(tmp_path)
    first, cache = _add(store, ANN), _add(store, ANN, b"longer cache", tokens=9)
    (store.folder.path / store.folder.new_name(BOB)).write_bytes(b"half")
    (store.folder.path / f"{LIST_FILE}.77.new").write_text("half", encoding="utf-8")
    assert not (store.folder.path / first.file).exists()
    assert _store(tmp_path).caches == {ANN: cache}
    assert _files(tmp_path) == sorted([cache.file, LIST_FILE])


def test_caches_of_another_fingerprint_are_deleted(tmp_path: Path) -> None:
    _add(_store(tmp_path), ANN)
    assert _store(tmp_path, "other").caches == {}
    assert _files(tmp_path) == [LIST_FILE]


@pytest.mark.parametrize("settings", [{"slot_save_seconds": 0.0}, {"store_content": False}])
def test_caches_are_deleted_when_saving_is_switched_off(tmp_path: Path, settings: dict[str, Any]) -> None:
    _add(_store(tmp_path), ANN)
    assert not _store(tmp_path, **settings).prepare()
    assert _files(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../../etc/passwd"},
        {"file": f"{BOB}-00000000.kv"},
        {"file": 5},
        {"tokens": "many"},
        {"bytes": -1},
        {"used_at": None},
        {"conversation": None},
        {"more": 1},
    ],
)
def test_cache_list_with_an_invalid_entry_is_discarded(tmp_path: Path, change: dict[str, Any]) -> None:
    _add(_store(tmp_path), ANN)
    path = slots_folder(tmp_path) / LIST_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["caches"][0] |= change
    path.write_text(json.dumps(content), encoding="utf-8")
    assert _store(tmp_path).caches == {}
    assert _files(tmp_path) == [LIST_FILE]


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", "7", '{"fingerprint": "same", "caches": 7}'])
def test_cache_list_that_is_no_list_is_discarded(tmp_path: Path, text: str) -> None:
    _add(_store(tmp_path), ANN)
    (slots_folder(tmp_path) / LIST_FILE).write_text(text, encoding="utf-8")
    assert _store(tmp_path).caches == {}


def test_deleted_conversation_loses_its_cache_and_earlier_generations_are_not_saved(tmp_path: Path) -> None:
    store = _store(tmp_path)
    ann, bob = _add(store, ANN), _add(store, BOB)
    before = FinishedGeneration(1, ANN, True, time.monotonic())
    assert store.may_save(before)
    mark_deleted(tmp_path, "local", "ann")
    assert not (store.folder.path / ann.file).exists()
    store.delete_marked({})
    assert store.caches == {BOB: bob}
    assert not store.may_save(before)
    assert store.may_save(FinishedGeneration(2, ANN, True, time.monotonic() + 0.1))  # a later tick of Windows' clock
    assert _files(tmp_path) == sorted([bob.file, LIST_FILE])


def test_deletion_without_a_supervisor_is_applied_at_the_next_start(tmp_path: Path) -> None:
    ann = _add(_store(tmp_path), ANN)
    (slots_folder(tmp_path) / f"{ANN}.forgotten").write_text("1.0", encoding="utf-8")
    assert _store(tmp_path).caches == {}
    assert ann.file not in _files(tmp_path)


def test_marking_a_deletion_creates_no_folder(tmp_path: Path) -> None:
    mark_deleted(tmp_path, "local", "ann")
    delete_unused(tmp_path, 1)
    assert not slots_folder(tmp_path).exists()


def test_caches_older_than_the_retention_are_deleted(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _add(store, ANN, used_at=time.time() - 3 * DAY)
    bob = _add(store, BOB)
    assert list(_store(tmp_path, retention_days=2).caches) == [BOB]
    delete_unused(tmp_path, 1)
    assert bob.file in _files(tmp_path)
    ended = FinishedGeneration(1, ANN, True, time.monotonic() - 3 * DAY)
    assert not _store(tmp_path, retention_days=2).may_save(ended)


def test_delete_unused_deletes_caches_older_than_the_given_days(tmp_path: Path) -> None:
    store = _store(tmp_path)
    old, new = _add(store, ANN, used_at=time.time() - 3 * DAY), _add(store, BOB)
    delete_unused(tmp_path, 2)
    assert (old.file in _files(tmp_path), new.file in _files(tmp_path)) == (False, True)


def test_cache_store_is_limited_to_slot_save_bytes(tmp_path: Path) -> None:
    store = _store(tmp_path, slot_save_bytes=1000)
    ann = _add(store, ANN, b"x" * 600, tokens=60)
    assert store.bytes_per_token == 10
    assert store.make_room(_candidate(BOB, 40))
    assert not store.make_room(_candidate(BOB, 41))
    too_large = _add(store, BOB, b"y" * 500)
    assert store.caches == {ANN: ann}
    assert too_large.file not in _files(tmp_path)


def test_former_cache_of_a_conversation_makes_room_for_its_new_one(tmp_path: Path) -> None:
    store = _store(tmp_path, slot_save_bytes=1000)
    former = _add(store, ANN, b"x" * 600, tokens=60)
    assert store.make_room(_candidate(ANN, 70))
    assert former.file not in _files(tmp_path)


def test_cache_store_leaves_a_gibibyte_of_disk_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path)
    _add(store, ANN, b"x" * 100, tokens=1)
    monkeypatch.setattr(CacheFolder, "free_bytes", lambda _folder: (1 << 30) + 5000)
    assert store.make_room(_candidate(BOB, 50))
    assert not store.make_room(_candidate(BOB, 51))


def test_cache_size_per_token_is_estimated_high_before_the_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheFolder, "free_bytes", lambda _folder: (1 << 30) + (500 << 20))
    assert _store(tmp_path).make_room(_candidate(BOB, 500))
    assert not _store(tmp_path).make_room(_candidate(BOB, 501))


def test_cache_file_is_deleted_when_the_list_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CacheFolder, "write_list", full)
    ann = _add(store, ANN)
    assert store.caches == {}
    assert ann.file not in _files(tmp_path)
