"""HTTP clients that are closed when a test ends: langchain-openai would keep its own open forever.

A server before an engine that says what a test wants, for programs that are to call a tool.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from tests.support.processes import Server
from tests.support.scripted_engine import ScriptedEngine, say, scripted_stack

# With the installations; a client that hangs adds the time that its test allows it.
CLIENTS_SECONDS = 240.0
_begun: list[float] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of real clients once they have taken their time together, so that no slow registry delays CI."""
    if item.get_closest_marker("clients"):
        _begun.append(time.monotonic())
        if time.monotonic() - _begun[0] > CLIENTS_SECONDS:
            pytest.skip(f"the {CLIENTS_SECONDS:.0f} s for real clients are over")


@pytest.fixture
async def http_clients() -> AsyncIterator[dict[str, Any]]:
    """The HTTP clients to construct a client of langchain-openai with."""
    with DefaultHttpxClient() as sync:
        async with DefaultAsyncHttpxClient() as asynchronous:
            yield {"http_client": sync, "http_async_client": asynchronous}


@pytest.fixture(scope="session")
def scripted() -> Iterator[tuple[Server, ScriptedEngine]]:
    """``bin/serve`` before a scripted engine; a test sets ``engine.script``. Conversations that clients do not want
    stored are kept too."""
    with scripted_stack(lambda _body: say("Nothing to say."), STORE_FALSE="conversation") as running:
        yield running
