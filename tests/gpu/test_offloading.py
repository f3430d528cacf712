"""A ``llama-server`` built with CUDA on a real GPU: all layers offloaded, and a context that does not fit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import requests

from mistral_api.hardware.gpu import read_device_memory
from tests.support.processes import read_key
from tests.support.supervisor_process import running_supervisor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("LLAMA_SERVER_BIN" not in os.environ, reason="LLAMA_SERVER_BIN names no llama-server"),
]
# The demo model's KV cache per token: keys and values of 30 blocks, 3 heads of 64 numbers, 2 bytes each.
BYTES_PER_TOKEN = 2 * 30 * 3 * 64 * 2


@pytest.fixture
def card_bytes() -> int:
    """The memory of all GPUs of this machine."""
    memory = read_device_memory()
    if memory is None:
        pytest.skip("no NVIDIA GPU here")
    return memory.total_bytes


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
