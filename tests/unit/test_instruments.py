"""What is counted of a request, and how few values its labels have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mistral_api.metrics.instruments import MAX_CODES, Instruments
from mistral_api.metrics.server_state import memory_step
from mistral_api.observability.finished_request import FinishedRequest
from mistral_api.settings import Settings
from tests.support.model_server_status import make_status

CHAT = FinishedRequest(
    request_id="1", method="POST", route="/v1/chat/completions", path="/v1/chat/completions", status=200,
    duration_ms=2500, endpoint="/v1/chat/completions", model="served", ttft_ms=120, prompt_tokens=30, cached_tokens=10,
    completion_tokens=20, tokens_per_second=35,
)  # fmt: skip


def _values(*requests: FinishedRequest) -> dict[str, float]:
    instruments = Instruments(lambda: {"served"})
    for request in requests:
        instruments.note_request(request)
    return {
        sample.name.removeprefix("mistral_api_")
        + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in instruments.collect()
        for sample in family.samples
    }


def test_request_is_counted_with_its_times_in_seconds() -> None:
    values = _values(CHAT, CHAT)
    assert values["requests_total /v1/chat/completions POST 200"] == 2
    assert values["request_duration_seconds_sum /v1/chat/completions"] == 5
    assert values["request_duration_seconds_bucket /v1/chat/completions 2.5"] == 2
    assert values["request_duration_seconds_bucket /v1/chat/completions 1.0"] == 0
    assert values["time_to_first_token_seconds_sum served"] == pytest.approx(0.24)
    assert values["tokens_per_second_sum served"] == 70
    assert [values[f"{kind}_tokens_total served"] for kind in ("prompt", "cached", "completion")] == [60, 20, 40]


def test_exchange_in_the_background_is_no_second_request() -> None:
    values = _values(replace(CHAT, endpoint=None, model=None), replace(CHAT, background=True))
    assert values["requests_total /v1/chat/completions POST 200"] == 1
    assert values["completion_tokens_total served"] == 20


def test_what_clients_invent_is_no_label() -> None:
    values = _values(*(replace(CHAT, model=f"invented-{n}", method=f"BREW{n}", route=None) for n in range(50)))
    assert values["completion_tokens_total other"] == 1000
    assert values["requests_total none other 200"] == 50
    assert not [name for name in values if "invented" in name or "BREW" in name]


def test_codes_beyond_the_bound_are_counted_together() -> None:
    values = _values(*(replace(CHAT, status=400, error_code=f"code_{n}") for n in range(MAX_CODES + 9)))
    codes = [name for name in values if name.startswith("request_errors_total ")]
    assert len(codes) == MAX_CODES + 1
    assert values["request_errors_total other"] == 9


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, 0),
        ({"gpu_layers": "13"}, 1),
        ({"gpu_layers": "13", "cache_type": "q8_0"}, 2),
        ({"context_size": 4096}, 2),
        ({"gpu_layers": "0"}, 3),
        ({"gpu_layers": "0", "cache_type": "q8_0"}, 4),
    ],
)
def test_memory_step_says_what_was_given_up(changes: dict[str, object], step: int) -> None:
    changed = make_status(memory_step="lower" if changes else None, **changes)
    assert memory_step(changed, Settings(gpu_layers="20", context_size=8192)) == step
