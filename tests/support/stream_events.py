"""Decode the events of a stream as a client does."""

from __future__ import annotations

from typing import Any

import orjson
import requests


def read_chunks(answer: requests.Response) -> list[Any]:
    """Return all chunks, decoded. Fails where the stream is incomplete or contains anything else."""
    assert answer.status_code == 200, answer.text
    *events, done, rest = answer.content.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in events]
    assert all(isinstance(chunk, dict) and not chunk.get("error") for chunk in chunks)
    return chunks
