"""What llama.cpp itself has counted: the counters of its ``/metrics``, and its slots while they work."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from tests.support.processes import Server, wait_for

_COUNTER = re.compile(r"^llamacpp:(prompt_tokens_total|prompt_tokens_cached_total|tokens_predicted_total) (\S+)$", re.M)

# Less than the requests would take to their end where other tests run. On a faster machine their tokens tell.
FREED_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """Tokens since the model server started: prompt tokens processed and found in the cache, tokens generated."""

    processed: int
    cached: int
    predicted: int

    def __sub__(self, before: EngineCounts) -> EngineCounts:
        return EngineCounts(
            self.processed - before.processed, self.cached - before.cached, self.predicted - before.predicted
        )


def engine_counts(server: Server) -> EngineCounts:
    """Return what the model server has counted until now. A slot's generated tokens count when it is freed."""
    text = requests.get(server.model_url + "/metrics", headers=server.model_key, timeout=30).text
    counters = {name: int(float(value)) for name, value in _COUNTER.findall(text)}
    return EngineCounts(
        counters["prompt_tokens_total"], counters["prompt_tokens_cached_total"], counters["tokens_predicted_total"]
    )


@contextlib.contextmanager
def broken_off(server: Server, tokens: int) -> Iterator[None]:
    """After the block, its request must free the slots before it has generated so many tokens."""
    before = engine_counts(server).predicted
    yield
    wait_for(lambda: server.slots_busy() == 0, "freed slots", FREED_SECONDS)
    assert engine_counts(server).predicted - before < tokens


def busy_slots(server: Server) -> list[dict[str, Any]]:
    """Return the slots that work on a request."""
    slots = requests.get(server.model_url + "/slots", headers=server.model_key, timeout=30).json()
    return [slot for slot in slots if slot["is_processing"]]


def most_processed(server: Server) -> int:
    """Return how many prompt tokens the busiest slot has processed for its request."""
    return max((slot["n_prompt_tokens_processed"] for slot in busy_slots(server)), default=0)


def most_generated(server: Server) -> int:
    """Return how many tokens the busiest slot has generated for its request."""
    return max((slot["next_token"][0]["n_decoded"] for slot in busy_slots(server)), default=0)
