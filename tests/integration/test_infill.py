"""``/infill`` on the real engine, with a model that has the tokens for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import requests

from mistral_api.model_files.served_model import demo_model_path
from tests.support.gguf_files import STRING, U32, encode_string
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for
from tests.support.raw_requests import send_request

GAP = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 4, "temperature": 0}
# Any tokens of the demo model will do: the test is about the request, not the text.
_TOKENS = {"fim_pre": 4, "fim_suf": 5, "fim_mid": 6}


def _write_infill_model(target: Path) -> Path:
    """Write the demo model with three more metadata entries, and one that keeps the tensors aligned."""
    content = demo_model_path().read_bytes()
    magic, version, tensors, entries = struct.unpack_from("<4sIqq", content)
    more = b"".join(
        encode_string(f"tokenizer.ggml.{name}_token_id") + struct.pack("<II", U32, token)
        for name, token in _TOKENS.items()
    )
    more += encode_string("test.padding") + struct.pack("<I", STRING)
    more += encode_string("x" * (-(len(more) + 8) % 32))
    head = struct.pack("<4sIqq", magic, version, tensors, entries + len(_TOKENS) + 1)
    target.write_bytes(head + more + content[len(head) :])
    return target


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The stack with that model."""
    with temporary_data_dir() as data_dir:
        model = _write_infill_model(data_dir.parent / "infill.gguf")
        with running_server(data_dir, MODEL_PATH=str(model), CONTEXT_SIZE="2048", PARALLEL="1") as running:
            yield running


def test_infill_completes_a_gap_and_is_recorded(server: Server) -> None:
    direct = requests.post(f"{server.model_url}/infill", json=GAP, headers=server.model_key, timeout=60).json()
    answer = requests.post(f"{server.url}/infill", json=GAP | {"session_id": "gap"}, timeout=60).json()
    assert answer["content"] == direct["content"] != ""
    assert answer["tokens_evaluated"] == direct["tokens_evaluated"]
    streamed = requests.post(f"{server.url}/infill", json=GAP | {"stream": True}, timeout=60).content
    events = [orjson.loads(event[6:]) for event in streamed.split(b"\n\n") if event]
    assert "".join(event["content"] for event in events) == answer["content"]
    user, model = requests.get(f"{server.url}/v1/conversations/gap", timeout=10).json()["messages"]
    assert [part["text"] for part in user["content"]] == [GAP["input_prefix"], GAP["input_suffix"]]
    assert model["content"] == answer["content"]


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_during_infill_frees_the_slot(server: Server, stream: bool) -> None:
    with send_request(server, "/infill", GAP | {"n_predict": 1000, "ignore_eos": True, "stream": stream}):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")
    wait_for(lambda: server.slots_busy() == 0, "a freed slot", 4)
