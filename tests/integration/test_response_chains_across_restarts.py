"""A chain of responses survives kill -9 and a planned restart of the whole stack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from openai import OpenAI
from openai.types.responses import Response

from tests.support.openai_clients import openai_client
from tests.support.processes import Server, running_server, temporary_data_dir

# With this variable the model server shows the prompts of its slots.
SETTINGS = {"CONTEXT_SIZE": "8192", "LLAMA_SERVER_SLOTS_DEBUG": "1"}
FIRST = "My parrot is called Zanzibar. " + " ".join(f"He counts {number}." for number in range(60))
INSTRUCTIONS = "You look after parrots, and answer in a few words."


@contextlib.contextmanager
def _running_stack(data_dir: Path) -> Iterator[tuple[Server, OpenAI]]:
    with (
        running_server(data_dir, **SETTINGS) as server,
        openai_client(server) as client,
    ):
        yield server, client


def _continue_chain(client: OpenAI, chain: list[Response], text: str) -> Response:
    """Create another response at the end of the chain."""
    options: Any = {"temperature": 0, "max_output_tokens": 16, "instructions": INSTRUCTIONS}
    before = chain[-1].id if chain else None
    made: Response = client.responses.create(input=text, previous_response_id=before, **options)
    chain.append(made)
    return made


def _uncached_tokens(response: Response) -> int:
    """Return the number of prompt tokens that were not in the cache."""
    assert response.usage is not None
    return response.usage.input_tokens - response.usage.input_tokens_details.cached_tokens


def _prompts(server: Server) -> list[str]:
    slots = requests.get(f"{server.model_url}/slots", headers=server.model_key, timeout=10).json()
    return [str(slot.get("prompt")) for slot in slots]


@pytest.mark.slow
def test_response_chain_keeps_its_context_across_a_kill_and_a_restart() -> None:
    chain: list[Response] = []
    with temporary_data_dir() as data_dir:
        with _running_stack(data_dir) as (server, client):
            _continue_chain(client, chain, FIRST)
            _continue_chain(client, chain, "Say two.")
            server.kill()
        with _running_stack(data_dir) as (server, client):
            assert _uncached_tokens(_continue_chain(client, chain, "Say three.")) > 300
            assert _uncached_tokens(_continue_chain(client, chain, "Say four.")) < 40
            assert server.stop() == 0
        with _running_stack(data_dir) as (server, client):
            # The model server's cache was saved when the stack was stopped.
            assert _uncached_tokens(_continue_chain(client, chain, "Say five.")) < 40
            assert _uncached_tokens(_continue_chain(client, chain, "Say six.")) < 40
            (prompt,) = [prompt for prompt in _prompts(server) if "Say six." in prompt]
            said = [FIRST, *(f"Say {word}." for word in ("two", "three", "four", "five"))]
            assert all(text in prompt for text in [*said, *(made.output_text for made in chain[:5])])
            assert prompt.count(INSTRUCTIONS) == 1
            assert client.responses.retrieve(chain[0].id).to_dict() == chain[0].to_dict()
