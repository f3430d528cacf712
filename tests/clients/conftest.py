"""HTTP clients that are closed when a test ends: langchain-openai would keep its own open forever.

A server before an engine that says what a test wants, for programs that are to call a tool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from tests.support.processes import Server
from tests.support.scripted_engine import ScriptedEngine, say, scripted_stack


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
