"""Saving and restoring slots of the real engine: what is saved, what never is, and what is never used."""

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
from mistral_api.embedded.demo_model import demo_model_path
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import Slot, SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache import SlotCacheManager
from tests.support.processes import clean_environment, data_folder, free_port, wait_for

ANN = conversation_key("local", "ann")
STORY = "".join(f" {number} apples," for number in range(80))


@dataclass
class Engine:
    """The bundled engine by itself, with 16 slots, and the settings of a supervisor that runs it."""

    settings: Settings
    seed: int = 0

    def say(self, text: str = STORY, **fields: Any) -> dict[str, Any]:
        """Complete a text, with a seed that nothing else has; the same text costs its prompt once."""
        self.seed += 1
        body = {"prompt": text, "max_tokens": 2, "seed": self.seed}
        url = f"{self.settings.model_server_base_url}/v1/completions"
        return dict(requests.post(url, json=body | fields, timeout=60).json())

    def slot(self) -> Slot:
        """The slot of the last request."""
        return next(slot for slot in SlotClient(self.settings).list_slots() if slot.seed == self.seed)

    def reports(self, **fields: Any) -> Feedback:
        """What the API tells of the last request: a generation of Ann's that may be stored."""
        values: dict[str, Any] = {
            "seed": self.seed,
            "conversation": ANN,
            "may_be_stored": True,
            "ended_at": time.monotonic(),
        } | fields
        return Feedback((), {self.seed: FinishedGeneration(**values)})


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Started once: a test uses up a slot or two."""
    with data_folder() as data_dir:
        settings = Settings(data_dir=data_dir, model_server_port=free_port(), parallel=16, context_size=16 * 1024)
        command = [sys.executable, "-m", "mistral_api.embedded.engine", "-m", str(demo_model_path()), "-np", "16"]
        flags = SlotCacheManager(settings, "same").flags()
        port = ["--port", str(settings.model_server_port), "-c", str(settings.context_size)]
        process = subprocess.Popen([*command, *port, *flags], env=clean_environment(), stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: _ready(settings), "the engine", 60)
            yield Engine(settings)
        finally:
            process.kill()
            process.wait(timeout=10)


def _ready(settings: Settings) -> bool:
    try:
        return requests.get(f"{settings.model_server_base_url}/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture
def caches(engine: Engine) -> Iterator[SlotCacheManager]:
    """A supervisor's hold on the folder, which is empty."""
    for path in slots_folder(engine.settings.data_dir).iterdir():
        path.unlink()
    made = SlotCacheManager(engine.settings, "same")
    made.restore()
    yield made
    made.close()


def _files(engine: Engine) -> list[Path]:
    return sorted(slots_folder(engine.settings.data_dir).glob("*.kv"))


def test_a_restored_conversation_is_continued_without_its_prompt(engine: Engine, caches: SlotCacheManager) -> None:
    text = f"Once{STORY}"
    engine.say(text)
    held = engine.slot()
    assert caches.save_all(engine.reports) == 1
    (file,) = _files(engine)
    assert file.name.startswith(ANN)
    requests.post(f"{engine.settings.model_server_base_url}/slots/{held.id}?action=erase", timeout=10)
    assert SlotCacheManager(engine.settings, "same").restore() == 1
    usage = engine.say(text)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 1
    assert engine.slot().id != held.id


def test_what_has_not_changed_is_not_saved_again(engine: Engine, caches: SlotCacheManager) -> None:
    engine.say()
    reports = engine.reports()
    assert caches.save_all(lambda: reports) == 1
    before = _files(engine)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == before


@pytest.mark.parametrize(
    "fields",
    [{"may_be_stored": False}, {"seed": -5}, {"ended_at": time.monotonic() - 1e9}],
    ids=["not to be stored", "unknown", "long ago"],
)
def test_what_is_not_to_be_stored_or_unknown_leaves_no_file(
    engine: Engine, caches: SlotCacheManager, fields: dict[str, Any]
) -> None:
    engine.say()
    reports = engine.reports(**fields)
    if "ended_at" in fields:
        mark_deleted(engine.settings.data_dir, "local", "ann")
    if "seed" in fields:
        reports = Feedback((), {-5: reports.generations[engine.seed]})
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_a_slot_that_went_to_another_request_while_it_was_saved_does_not_count(
    engine: Engine, caches: SlotCacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say()
    held, reports, save = engine.slot(), engine.reports(), SlotClient.save

    def overtaken(server: SlotClient, slot: Slot, filename: str, seconds: float) -> int:
        engine.say(id_slot=held.id)
        return save(server, slot, filename, seconds)

    monkeypatch.setattr(SlotClient, "save", overtaken)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_a_conversation_that_is_deleted_while_it_is_saved_leaves_no_file(
    engine: Engine, caches: SlotCacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say()
    reports, save = engine.reports(), SlotClient.save

    def deleted(server: SlotClient, slot: Slot, filename: str, seconds: float) -> int:
        mark_deleted(engine.settings.data_dir, "local", "ann")
        return save(server, slot, filename, seconds)

    monkeypatch.setattr(SlotClient, "save", deleted)
    assert caches.save_all(lambda: reports) == 0
    assert _files(engine) == []


def test_a_damaged_cache_never_reaches_the_engine(engine: Engine, caches: SlotCacheManager) -> None:
    """llama.cpp would end the process over a file that is too short."""
    engine.say()
    assert caches.save_all(engine.reports) == 1
    (file,) = _files(engine)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        listed = (file.parent / LIST_FILE).read_text()
        assert SlotCacheManager(engine.settings, "same").restore() == 0
        assert _files(engine) == []
        assert _ready(engine.settings)
        (file.parent / LIST_FILE).write_text(listed)


def test_a_cache_of_other_settings_is_deleted(engine: Engine, caches: SlotCacheManager) -> None:
    engine.say()
    assert caches.save_all(engine.reports) == 1
    assert SlotCacheManager(engine.settings, "other").restore() == 0
    assert _files(engine) == []


def test_what_the_engine_does_not_take_is_deleted(engine: Engine, caches: SlotCacheManager) -> None:
    engine.say()
    assert caches.save_all(engine.reports) == 1
    path = slots_folder(engine.settings.data_dir) / LIST_FILE
    path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))
    assert SlotCacheManager(engine.settings, "same").restore() == 0
    assert _files(engine) == []


def test_caches_that_a_server_dies_of_are_not_given_to_it_again(engine: Engine, caches: SlotCacheManager) -> None:
    engine.say()
    assert caches.save_all(engine.reports) == 1
    again = SlotCacheManager(engine.settings, "same")
    assert again.restore() == 1
    again.distrust_restored(healthy_seconds=1)
    assert _files(engine) == []


def test_a_save_is_due_only_in_time_and_after_a_request(engine: Engine, caches: SlotCacheManager) -> None:
    now = time.monotonic()
    engine.say()
    reports = engine.reports()
    caches.save_if_due(now + 1, reports)
    caches.save_if_due(now + 1000, Feedback((), {}))
    assert not caches.is_saving
    caches.save_if_due(now + 1000, reports)
    wait_for(lambda: _files(engine) and not caches.is_saving, "the save", 20)
    caches.save_if_due(now + 10_000, reports)
    assert not caches.is_saving


def test_a_quiet_moment_is_waited_for(engine: Engine, caches: SlotCacheManager) -> None:
    engine.say()
    reports, now, server = engine.reports(), time.monotonic(), SlotClient(engine.settings)
    body = {"prompt": "Long", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    url = f"{engine.settings.model_server_base_url}/v1/completions"
    with requests.post(url, json=body, stream=True, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: an iterator that is dropped closes the connection
        next(lines)
        caches.save_if_due(now + 301, reports)
        wait_for(lambda: not caches.is_saving, "the look", 20)
        assert _files(engine) == []
        caches.save_if_due(now + 700, reports)
        wait_for(lambda: _files(engine), "a save beside a busy slot", 20)
        assert any(slot.busy for slot in server.list_slots())
        del lines


def test_a_server_that_does_not_answer_is_no_reason_to_stop(engine: Engine, caches: SlotCacheManager) -> None:
    away = SlotCacheManager(Settings(data_dir=engine.settings.data_dir, model_server_port=free_port()), "same")
    engine.say()
    assert away.save_all(engine.reports) == 0
    assert away.restore() == 0
    with pytest.raises(SlotFailure):
        SlotClient(engine.settings).restore(Slot(0, False), "none", 5)
