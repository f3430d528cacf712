"""Which model servers get one KV cache for all slots, how large it is, and what a status says of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mistral_api.control.placement import Placement
from mistral_api.control.server_spec import embedding_server_spec, main_server_spec
from mistral_api.control.shared_cache import (
    IDLE_SLOTS,
    NOT_UNIFIED,
    UNIFIED,
    SharedCache,
    is_shared,
    whole_context,
    with_shared_cache,
)
from mistral_api.control.status import ModelServerStatus, State
from mistral_api.settings import Settings
from tests.support.gguf_files import write_gguf

STATUS = ModelServerStatus(
    state=State.READY,
    since=0,
    supervisor_pid=1,
    supervisor_started=0,
    engine="bundled",
    model="m",
    model_path="/m.gguf",
    model_context=8192,
    url="http://127.0.0.1:1",
    gpu_layers="auto",
    context_size=0,
    shared_cache=True,
    batch_size=1,
    threads=1,
    parallel=4,
    log_path="/log",
)


@pytest.mark.parametrize(
    ("environment", "shared"),
    [
        ({}, True),
        ({UNIFIED: "0"}, False),
        ({UNIFIED: "false"}, False),
        ({UNIFIED: "1"}, True),
        ({NOT_UNIFIED: "1"}, False),
        ({"LLAMA_ARG_MMPROJ": "/p.gguf"}, False),
        ({"LLAMA_ARG_MMPROJ": "/p.gguf", UNIFIED: "1"}, True),
        ({"LLAMA_ARG_EMBEDDINGS": "1"}, False),
        ({"LLAMA_ARG_MMPROJ": ""}, True),
    ],
)
def test_slots_share_a_cache_unless_the_operator_or_the_model_says_otherwise(
    environment: dict[str, str], shared: bool
) -> None:
    completed = with_shared_cache(environment)
    assert is_shared(completed) is shared
    assert completed[IDLE_SLOTS] == "0"
    assert completed.items() >= environment.items()


def test_choice_of_the_operator_for_idle_slots_stays() -> None:
    assert with_shared_cache({IDLE_SLOTS: "1"})[IDLE_SLOTS] == "1"


def test_main_server_with_several_slots_shares_them(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UNIFIED, raising=False)
    embedding = embedding_server_spec(Settings(embedding_model_path=write_gguf(tmp_path / "e.gguf")))
    assert embedding is not None
    assert is_shared(main_server_spec(Settings(parallel=4)).environment())
    assert not is_shared(main_server_spec(Settings(parallel=1)).environment())
    assert not is_shared(embedding.environment())


def test_context_of_the_model_is_there_once_where_it_is_shared() -> None:
    assert whole_context(Settings(parallel=4), 8192, {UNIFIED: "1"}) == 8192
    assert whole_context(Settings(parallel=4), 8192, {}) == 4 * 8192
    assert whole_context(Settings(parallel=4, context_size=4096), 8192, {}) == 4096
    assert whole_context(Settings(parallel=4), None, {}) == 0


@pytest.mark.parametrize(
    ("changes", "cache"),
    [
        ({}, SharedCache(8192, 8192, 4)),
        ({"context_size": 2048}, SharedCache(2048, 2048, 4)),
        ({"context_size": 16_384}, SharedCache(16_384, 8192, 4)),
        ({"context_size": 32_768}, None),  # as much as four requests can use
        ({"shared_cache": False}, None),
        ({"model_context": None}, None),
        ({"placement": Placement(unified_cache=False, context_size=8192, request_context_size=2048)}, None),
        # llama.cpp has made a context that was left to it smaller, to fit a card.
        (
            {"placement": Placement(unified_cache=True, context_size=4096, request_context_size=4096)},
            SharedCache(4096, 4096, 4),
        ),
        # A llama-server that knows of no shared cache says how much one slot has, and nothing of sharing.
        ({"context_size": 8192, "placement": Placement(request_context_size=2048)}, None),
    ],
)
def test_shared_cache_of_a_status(changes: dict[str, Any], cache: SharedCache | None) -> None:
    assert dataclasses.replace(STATUS, **changes).shared_kv_cache == cache
