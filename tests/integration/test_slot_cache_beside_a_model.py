"""Saved slots of a model with a projector and an adapter: images come back, and no cache of other scales is saved."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.control.feedback import Feedback, FinishedGeneration
from mistral_api.control.saved_caches import conversation_key, slots_folder
from mistral_api.settings import Settings
from mistral_api.supervisor.hang_detection import Probe, SlotActivity
from mistral_api.supervisor.http_client import SlotClient
from mistral_api.supervisor.slot_cache import SlotCacheManager
from tests.support.engine_process import EngineProcess, running_engine
from tests.support.processes import wait_for
from tests.support.projector_file import png, write_projector
from tests.support.vision_model import write_lora, write_vision_model

ANN = conversation_key("local", "ann")
SLEEP_SECONDS = 2
LONG_QUESTION = "What is this? " * 25  # the tiny model spells in bytes, so these are 350 tokens
IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + base64.b64encode(png((255, 0, 0))).decode()},
}


def _run(folder: Path, **variables: str) -> AbstractContextManager[EngineProcess]:
    model, lora = write_vision_model(folder / "eyes.gguf"), write_lora(folder / "french.gguf")
    slots_folder(folder).mkdir(exist_ok=True)
    beside = {"MMPROJ": str(write_projector(folder / "mmproj.gguf")), "LORA_SCALED": f"{lora}:0"}
    own = {"SLOT_SAVE_PATH": str(slots_folder(folder)), "CTX_SIZE": "4096", "N_PARALLEL": "4"}
    return running_engine(folder, model, **beside, **own, **variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DATA_DIR, with the model's files."""
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """An engine that serves it."""
    with _run(folder) as running:
        yield running


@pytest.fixture
def drowsy(folder: Path) -> Iterator[EngineProcess]:
    """Another one, which sleeps when it is idle."""
    with _run(folder, SLEEP_IDLE_SECONDS=str(SLEEP_SECONDS), ENDPOINT_METRICS="1") as running:
        yield running


def _settings(engine: EngineProcess, folder: Path) -> Settings:
    return Settings(data_dir=folder, model_server_port=int(engine.url.rpartition(":")[2]), parallel=4)


def _caches(engine: EngineProcess, folder: Path, sleep_seconds: float | None = None) -> SlotCacheManager:
    return SlotCacheManager(_settings(engine, folder), "same", sleep_seconds=sleep_seconds, has_adapters=True)


def _ask(engine: EngineProcess, seed: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": [{"type": "text", "text": f"{seed} {LONG_QUESTION}"}, IMAGE]}]
    answer = engine.post("/v1/chat/completions", messages=messages, seed=seed, **fields)
    return dict(answer)


def _feedback(seed: int) -> Feedback:
    return Feedback((), {seed: FinishedGeneration(seed, ANN, may_be_stored=True, ended_at=time.monotonic())})


def test_slot_under_scales_of_its_own_or_of_an_operator_is_not_saved(engine: EngineProcess, folder: Path) -> None:
    caches = _caches(engine, folder)
    caches.restore()
    _ask(engine, 1, lora=[{"id": 0, "scale": 1}])
    assert caches.save_all(lambda: _feedback(1)) == 0
    _ask(engine, 2)
    requests.post(f"{engine.url}/lora-adapters", json=[{"id": 0, "scale": 0.5}], timeout=10).raise_for_status()
    assert caches.save_all(lambda: _feedback(2)) == 0
    requests.post(f"{engine.url}/lora-adapters", json=[{"id": 0, "scale": 0}], timeout=10).raise_for_status()
    assert caches.save_all(lambda: _feedback(2)) == 1
    caches.close()


def test_sleeping_server_is_neither_hung_nor_woken_for_its_slots(drowsy: EngineProcess, folder: Path) -> None:
    settings, caches = _settings(drowsy, folder), _caches(drowsy, folder, sleep_seconds=SLEEP_SECONDS)
    caches.restore()
    probe = Probe(settings, may_sleep=True)
    _ask(drowsy, 3)
    slots = SlotClient(settings)

    def falls_asleep() -> bool:
        activity = probe.read_activity()
        assert isinstance(activity, SlotActivity)
        return slots.is_sleeping()

    wait_for(falls_asleep, "an engine that sleeps while it is probed")
    assert caches.save_all(lambda: _feedback(3)) == 0
    activity = probe.read_activity()
    assert activity is not None
    assert activity.busy_slots == 0
    assert slots.is_sleeping()
    assert _ask(drowsy, 4)["choices"][0]["message"]["content"] == "The image is red."
    assert not slots.is_sleeping()
    caches.close()


def test_conversation_with_an_image_is_restored_into_the_next_server(folder: Path) -> None:
    with _run(folder) as engine:
        caches = _caches(engine, folder)
        caches.restore()
        first = _ask(engine, 5)["usage"]
        assert caches.save_all(lambda: _feedback(5)) == 1
        caches.close()
    with _run(folder) as engine:
        caches = _caches(engine, folder)
        assert caches.restore() == 1
        again = _ask(engine, 5)
        assert again["choices"][0]["message"]["content"] == "The image is red."
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"] - 2
        caches.close()
