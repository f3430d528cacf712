"""Clients of the openai package for a running server."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.support.processes import Server


def openai_client(server: Server) -> OpenAI:
    """Return a client without retries; to be closed by its user."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


def async_openai_client(server: Server, **options: Any) -> AsyncOpenAI:
    """Return an async client without retries, with further options of its constructor; to be closed by its user."""
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60, **options)
