"""Switches of llama.cpp, set through the environment and seen at the engine: properties, slots, log, answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mistral_api.model_files.served_model import demo_model_path
from tests.support.engine_process import EngineProcess, running_engine
from tests.support.processes import Server
from tests.support.projector_file import write_projector
from tests.support.vision_model import CONTEXT, write_lora, write_vision_model

SWITCHES = {
    # One cache for four slots, twice as long as the model's own context, by YaRN, in numbers of 8 bits.
    "CTX_SIZE": str(2 * CONTEXT),
    "N_PARALLEL": "4",
    "KV_UNIFIED": "1",
    "ROPE_SCALING_TYPE": "yarn",
    "ROPE_SCALE": "2",
    "YARN_ORIG_CTX": str(CONTEXT),
    "CACHE_TYPE_K": "q8_0",
    "CACHE_TYPE_V": "q8_0",
    "FLASH_ATTN": "on",
    "SWA_FULL": "1",
    "CTX_CHECKPOINTS": "3",
    "CACHE_RAM": "16",
    "CHAT_TEMPLATE": "{{ mood }}: {{ messages[0].content }}",
    "CHAT_TEMPLATE_KWARGS": '{"mood": "calm"}',
    "THINK": "none",
    "TEMPERATURE": "0.25",
    "TOP_K": "7",
    "SPEC_TYPE": "ngram-simple",
    "SPEC_NGRAM_SIMPLE_SIZE_N": "3",
    "BATCH": "48",
    "UBATCH": "24",
    "ALIAS": "eyes",
}
COUNTING = "Repeat exactly: " + "one two three four five six seven eight nine ten. " * 3


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine with all of them."""
    folder = tmp_path_factory.mktemp("switches")
    model, lora = write_vision_model(folder / "eyes.gguf"), write_lora(folder / "french.gguf")
    beside = {"MMPROJ": str(write_projector(folder / "mmproj.gguf")), "LORA_SCALED": f"{lora}:0.5"}
    with running_engine(folder, model, **SWITCHES, **beside) as running:
        yield running


def test_context_is_one_for_all_slots_and_longer_than_the_models_own(engine: EngineProcess) -> None:
    slots = engine.get("/slots")
    assert [slot["n_ctx"] for slot in slots] == [2 * CONTEXT] * 4
    assert engine.get("/props")["total_slots"] == 4
    log = engine.log()
    assert re.search(r"kv_unified += true", log)
    assert re.search(r"freq_scale += 0\.5\b", log)
    assert re.search(rf"n_ctx_train adjusted to {2 * CONTEXT}\b", log)


def test_cache_types_batches_and_caches_of_prompts_are_as_set(engine: EngineProcess) -> None:
    log = engine.log()
    assert re.search(r"K \(q8_0\).*V \(q8_0\)", log)
    assert re.search(r"flash_attn += enabled", log)
    assert re.search(r"n_batch += 48\b", log)
    assert re.search(r"n_ubatch += 24\b", log)
    assert re.search(r"prompt cache is enabled, size limit: 16 MiB", log)
    assert re.search(r"context checkpoints enabled, max = 3\b", log)
    assert "swa_full is not supported by this model" in log  # which has no sliding window


def test_template_arguments_reasoning_and_sampling_are_as_set(engine: EngineProcess) -> None:
    prompt = engine.post("/apply-template", messages=[{"role": "user", "content": "Hello"}])["prompt"]
    assert prompt.startswith("calm: Hello")
    props = engine.get("/props")
    parameters = props["default_generation_settings"]["params"]
    assert (parameters["reasoning_format"], parameters["temperature"], parameters["top_k"]) == ("none", 0.25, 7)
    assert props["model_alias"] == "eyes"


def test_projector_adapter_and_speculation_are_loaded(engine: EngineProcess) -> None:
    modalities = engine.get("/props")["modalities"]
    assert (modalities["vision"], modalities["audio"]) == (True, True)
    assert [adapter["scale"] for adapter in engine.get("/lora-adapters")] == [0.5]
    assert all(slot["speculative"] for slot in engine.get("/slots"))
    assert "size_n=3" in engine.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    "switches",
    [
        {"SPEC_TYPE": "draft-simple", "SPEC_DRAFT_MODEL": str(demo_model_path()), "SPEC_DRAFT_N_MAX": "4"},
        {"SPEC_TYPE": "ngram-simple", "SPEC_NGRAM_SIMPLE_SIZE_N": "3"},
    ],
    ids=lambda switches: switches["SPEC_TYPE"],
)
def test_speculation_guesses_and_changes_no_text(server: Server, tmp_path: Path, switches: dict[str, str]) -> None:
    body = {"messages": [{"role": "user", "content": COUNTING}], "temperature": 0, "max_tokens": 24}
    plain = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    with running_engine(tmp_path, demo_model_path(), CTX_SIZE="2048", **switches) as engine:
        guessed = engine.post("/v1/chat/completions", **body)
    assert guessed["choices"][0]["message"]["content"] == plain["choices"][0]["message"]["content"]
    assert guessed["timings"]["draft_n"] >= guessed["timings"]["draft_n_accepted"] > 0
