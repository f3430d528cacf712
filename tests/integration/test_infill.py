"""``/infill`` on the real engine, with a model that has the tokens for it."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
import requests

from tests.support.infill_model import write_infill_model
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for
from tests.support.raw_requests import send_request

GAP = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 4, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The stack with that model."""
    with temporary_data_dir() as data_dir:
        model = write_infill_model(data_dir.parent / "infill.gguf")
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
