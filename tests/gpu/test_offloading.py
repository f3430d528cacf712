"""A ``llama-server`` with CUDA on a real GPU: where the model lies, memory that is short, caches that come back."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from bench.gpu.held_memory import memory_held
from mistral_api.hardware.gpu import read_device_memory
from tests.support.processes import Server, read_key, running_server, wait_for
from tests.support.supervisor_process import running_supervisor

pytestmark = pytest.mark.gpu

# The demo model's KV cache per token: keys and values of 30 blocks, 3 heads of 64 numbers, 2 bytes each.
BYTES_PER_TOKEN = 2 * 30 * 3 * 64 * 2
GIB = 1 << 30


def _settings(**settings: str) -> dict[str, str]:
    return {"LLAMA_SERVER_BIN": os.environ["LLAMA_SERVER_BIN"], "PARALLEL": "1"} | settings


def test_all_layers_are_offloaded_to_the_gpu_and_a_chat_succeeds(data_dir: Path, card_bytes: int) -> None:
    with running_supervisor(data_dir, **_settings(GPU_LAYERS="all", LLAMA_ARG_LOG_VERBOSITY="4")) as running:
        status = running.wait_ready(seconds=120)
        offloaded = re.search(r"offloaded (\d+)/(\d+) layers to GPU", Path(status.log_path).read_text())
        assert offloaded is not None
        assert offloaded[1] == offloaded[2]
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        key = {"Authorization": f"Bearer {read_key(data_dir)}"}
        answer = requests.post(f"{status.url}/v1/chat/completions", json=body, headers=key, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] > 0
    assert card_bytes > 0


def test_health_says_where_the_model_lies_and_what_it_takes_of_the_card(data_dir: Path, card_bytes: int) -> None:
    before = read_device_memory()
    with running_server(data_dir, **_settings(GPU_LAYERS="all", CONTEXT_SIZE="8192")) as server:
        after = read_device_memory()
        model = server.health()["model_server"]
    assert before is not None
    assert after is not None
    assert model["gpu_layers"] == model["layers"] > 0
    (device,) = model["memory"]["devices"]
    assert device["name"] in model["device"]
    # The driver's own context comes on top of what the engine's buffers take.
    assert 0 < device["bytes"] < before.free_bytes - after.free_bytes < device["bytes"] + GIB
    assert card_bytes > device["bytes"]


def test_context_too_large_for_the_gpu_is_reduced_and_the_result_is_remembered(data_dir: Path, card_bytes: int) -> None:
    context = str(card_bytes * 3 // 2 // BYTES_PER_TOKEN)
    settings = _settings(GPU_LAYERS="all", CONTEXT_SIZE=context)
    with running_supervisor(data_dir, **settings) as running:
        first = running.wait_ready(restarts=None, seconds=300)
    assert first.memory_step is not None
    assert all("for want of memory" in restart.reason for restart in first.last_restarts)
    with running_supervisor(data_dir, **settings) as running:
        again = running.wait_ready(seconds=120)
    assert (again.gpu_layers, again.context_size) == (first.gpu_layers, first.context_size)


@pytest.mark.usefixtures("card_bytes")
def test_model_starts_with_less_while_another_process_holds_the_memory(data_dir: Path) -> None:
    # The model and its cache for so many tokens would take 1.6 GiB.
    settings = _settings(GPU_LAYERS="all", CONTEXT_SIZE=str(3 * GIB // 2 // BYTES_PER_TOKEN))
    with memory_held(GIB), running_supervisor(data_dir, **settings) as running:
        status = running.wait_ready(restarts=None, seconds=300)
    assert status.memory_step is not None


@pytest.mark.usefixtures("card_bytes")
def test_cache_of_a_conversation_is_restored_into_the_memory_of_the_gpu(data_dir: Path) -> None:
    settings = _settings(GPU_LAYERS="all", CONTEXT_SIZE="8192")
    with running_server(data_dir, **settings) as server:
        assert _cached_tokens(server) == 0
        assert server.stop() == 0
    with running_server(data_dir, **settings) as server:
        wait_for(lambda: server.health()["model_server"]["state"] == "ready", "the model server", 60)
        assert _cached_tokens(server) > 900


def _cached_tokens(server: Server) -> int:
    """Send a conversation of about 1,000 tokens, and return how many of them were in the cache."""
    text = "Ann counts. " + " ".join(f"Ann {number}," for number in range(180))
    messages = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"messages": messages, "max_tokens": 4, "temperature": 0, "session_id": "ann"}
    done = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    assert done.status_code == 200, done.text
    return int(done.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
