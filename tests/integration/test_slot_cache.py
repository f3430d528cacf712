"""Saving and restoring slots of the real engine: what is saved, what is never saved, and what is never restored."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.control.feedback import Feedback, FinishedGeneration
from mistral_api.control.saved_caches import LIST_FILE, conversation_key, mark_deleted, slots_folder
from mistral_api.model_files.served_model import demo_model_path
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import Slot, SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache import SlotCacheManager
from tests.support.processes import clean_environment, free_port, temporary_data_dir, wait_for

ANN = conversation_key("local", "ann")
STORY = "".join(f" {number} apples," for number in range(80))


@dataclass
class RunningEngine:
    """The bundled engine alone, with 16 slots, and the settings of a supervisor that runs it."""

    settings: Settings
    seed: int = 0

    def complete(self, text: str = STORY, **fields: Any) -> dict[str, Any]:
        """Complete a text with a unique seed; the same text is read from the prompt cache the next time."""
        self.seed += 1
        body = {"prompt": text, "max_tokens": 2, "seed": self.seed}
        url = f"{self.settings.model_server_base_url}/v1/completions"
        return dict(requests.post(url, json=body | fields, timeout=60).json())

    def slot(self) -> Slot:
        """Return the slot of the last request."""
        return next(slot for slot in SlotClient(self.settings).list_slots() if slot.seed == self.seed)

    def feedback(self, **fields: Any) -> Feedback:
        """Return the API's feedback for the last request: a generation of Ann's that may be stored."""
        values: dict[str, Any] = {
            "seed": self.seed,
            "conversation": ANN,
            "may_be_stored": True,
            "ended_at": time.monotonic(),
        } | fields
        return Feedback((), {self.seed: FinishedGeneration(**values)})


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """An engine started once for the module: each test uses up a slot or two."""
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, model_server_port=free_port(), parallel=16, context_size=16 * 1024)
        command = [
            sys.executable,
            "-m",
            "mistral_api.embedded.engine",
            "-m",
            str(demo_model_path()),
            "-np",
            "16",
            "-t",
            "1",
        ]
        flags = SlotCacheManager(settings, "same").flags()
        port = ["--port", str(settings.model_server_port), "-c", str(settings.context_size)]
        process = subprocess.Popen([*command, *port, *flags], env=clean_environment(), stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: _is_ready(settings), "the engine", 60)
            yield RunningEngine(settings)
        finally:
            process.kill()
            process.wait(timeout=10)


def _is_ready(settings: Settings) -> bool:
    try:
        return requests.get(f"{settings.model_server_base_url}/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture
def caches(engine: RunningEngine) -> Iterator[SlotCacheManager]:
    """A supervisor's saved caches in an empty folder."""
    for path in slots_folder(engine.settings.data_dir).iterdir():
        path.unlink()
    made = SlotCacheManager(engine.settings, "same")
    made.restore()
    yield made
    made.close()


def _files(engine: RunningEngine) -> list[Path]:
    return sorted(slots_folder(engine.settings.data_dir).glob("*.kv"))


def test_restored_slot_cache_saves_the_prompt_of_the_next_request(
    engine: RunningEngine, caches: SlotCacheManager
) -> None:
    text = f"Once{STORY}"
    engine.complete(text)
    held = engine.slot()
    assert caches.save_all(engine.feedback) == 1
    (file,) = _files(engine)
    assert file.name.startswith(ANN)
    requests.post(f"{engine.settings.model_server_base_url}/slots/{held.id}?action=erase", timeout=10)
    assert SlotCacheManager(engine.settings, "same").restore() == 1
    usage = engine.complete(text)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 1
    assert engine.slot().id != held.id


@pytest.mark.slow
def test_unchanged_slot_cache_is_not_saved_again(engine: RunningEngine, caches: SlotCacheManager) -> None:
    engine.complete()
    reports = engine.feedback()
    assert caches.save_all(lambda: reports) == 1
    before = _files(engine)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == before


@pytest.mark.parametrize(
    "fields",
    [{"may_be_stored": False}, {"seed": -5}, {"ended_at": time.monotonic() - 1e9}],
    ids=["not to be stored", "unknown", "long ago"],
)
def test_slot_of_an_unstored_unknown_or_deleted_conversation_is_not_saved(
    engine: RunningEngine, caches: SlotCacheManager, fields: dict[str, Any]
) -> None:
    engine.complete()
    reports = engine.feedback(**fields)
    if "ended_at" in fields:
        mark_deleted(engine.settings.data_dir, "local", "ann")
    if "seed" in fields:
        reports = Feedback((), {-5: reports.generations[engine.seed]})
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_slot_taken_by_another_request_during_the_save_is_discarded(
    engine: RunningEngine, caches: SlotCacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.complete()
    held, reports, save = engine.slot(), engine.feedback(), SlotClient.save

    def overtaken(server: SlotClient, slot: Slot, filename: str, seconds: float) -> int:
        engine.complete(id_slot=held.id)
        return save(server, slot, filename, seconds)

    monkeypatch.setattr(SlotClient, "save", overtaken)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_conversation_deleted_during_the_save_leaves_no_file(
    engine: RunningEngine, caches: SlotCacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.complete()
    reports, save = engine.feedback(), SlotClient.save

    def deleted(server: SlotClient, slot: Slot, filename: str, seconds: float) -> int:
        mark_deleted(engine.settings.data_dir, "local", "ann")
        return save(server, slot, filename, seconds)

    monkeypatch.setattr(SlotClient, "save", deleted)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_damaged_slot_cache_is_deleted_and_not_restored(engine: RunningEngine, caches: SlotCacheManager) -> None:
    """llama.cpp ends its process over a file that is too short."""
    engine.complete()
    assert caches.save_all(engine.feedback) == 1
    (file,) = _files(engine)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        listed = (file.parent / LIST_FILE).read_text()
        assert SlotCacheManager(engine.settings, "same").restore() == 0
        assert _files(engine) == []
        assert _is_ready(engine.settings)
        (file.parent / LIST_FILE).write_text(listed)


def test_slot_cache_of_other_settings_is_deleted(engine: RunningEngine, caches: SlotCacheManager) -> None:
    engine.complete()
    assert caches.save_all(engine.feedback) == 1
    assert SlotCacheManager(engine.settings, "other").restore() == 0
    assert _files(engine) == []


def test_slot_cache_that_the_engine_refuses_is_deleted(engine: RunningEngine, caches: SlotCacheManager) -> None:
    engine.complete()
    assert caches.save_all(engine.feedback) == 1
    path = slots_folder(engine.settings.data_dir) / LIST_FILE
    path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))
    assert SlotCacheManager(engine.settings, "same").restore() == 0
    assert _files(engine) == []


def test_slot_caches_restored_before_a_crash_are_deleted(engine: RunningEngine, caches: SlotCacheManager) -> None:
    engine.complete()
    assert caches.save_all(engine.feedback) == 1
    again = SlotCacheManager(engine.settings, "same")
    assert again.restore() == 1
    again.discard_if_ended_early(healthy_seconds=1)
    assert _files(engine) == []


def test_slot_save_is_due_only_after_the_interval_and_a_request(
    engine: RunningEngine, caches: SlotCacheManager
) -> None:
    now = time.monotonic()
    engine.complete()
    reports = engine.feedback()
    caches.save_if_due(now + 1, reports)
    caches.save_if_due(now + 1000, Feedback((), {}))
    assert not caches.is_saving
    caches.save_if_due(now + 1000, reports)
    wait_for(lambda: _files(engine) and not caches.is_saving, "the save", 20)
    caches.save_if_due(now + 10_000, reports)
    assert not caches.is_saving


def test_slot_save_waits_for_an_idle_server_before_saving_beside_a_busy_slot(
    engine: RunningEngine, caches: SlotCacheManager
) -> None:
    engine.complete()
    reports, now, server = engine.feedback(), time.monotonic(), SlotClient(engine.settings)
    body = {"prompt": "Long", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    url = f"{engine.settings.model_server_base_url}/v1/completions"
    with requests.post(url, json=body, stream=True, timeout=60) as answer:
        lines = answer.iter_lines()  # referenced until the end: a dropped iterator closes the connection
        next(lines)
        caches.save_if_due(now + 301, reports)
        wait_for(lambda: not caches.is_saving, "the look", 20)
        assert _files(engine) == []
        caches.save_if_due(now + 700, reports)
        wait_for(lambda: _files(engine), "a save beside a busy slot", 20)
        assert any(slot.busy for slot in server.list_slots())
        del lines


def test_slot_save_and_restore_without_a_server_do_nothing(engine: RunningEngine, caches: SlotCacheManager) -> None:
    away = SlotCacheManager(Settings(data_dir=engine.settings.data_dir, model_server_port=free_port()), "same")
    engine.complete()
    assert away.save_all(engine.feedback) == 0
    assert away.restore() == 0
    with pytest.raises(SlotFailure):
        SlotClient(engine.settings).restore(Slot(0, False), "none", 5)
