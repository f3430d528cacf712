"""HTTP clients that are closed when a test ends: langchain-openai would keep its own open forever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient


@pytest.fixture
async def http_clients() -> AsyncIterator[dict[str, Any]]:
    """The HTTP clients to construct a client of langchain-openai with."""
    with DefaultHttpxClient() as sync:
        async with DefaultAsyncHttpxClient() as asynchronous:
            yield {"http_client": sync, "http_async_client": asynchronous}
