"""Time to the first event of one stream."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from bench.programs import BenchmarkError


def time_first_event(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    """Return the milliseconds until the first event of a stream; the rest is read and not timed.

    A server may close a connection after a stream, so each stream gets a new one. Raises BenchmarkError.
    """
    connection.close()
    began = time.perf_counter()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body | {"stream": True}), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise BenchmarkError(f"The server answered {response.status}: {response.read()[:300]!r}")
    # A comment before it only keeps the connection alive.
    while (line := response.readline()) and not line.startswith(b"data:"):
        pass
    spent = (time.perf_counter() - began) * 1000
    response.read()
    return spent
