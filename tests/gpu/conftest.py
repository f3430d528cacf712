"""What tests on a real card share."""

from __future__ import annotations

import os

import pytest

from mistral_api.hardware.gpu import read_device_memory


@pytest.fixture
def card_bytes() -> int:
    """The memory of all GPUs of this machine; skips without a GPU, or without a ``llama-server`` that may use it."""
    if "LLAMA_SERVER_BIN" not in os.environ:
        pytest.skip("LLAMA_SERVER_BIN names no llama-server")
    memory = read_device_memory()
    if memory is None:
        pytest.skip("no NVIDIA GPU here")
    return memory.total_bytes
