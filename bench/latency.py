"""What a request costs more through the API than at the bare model server, pair by pair.

Each pair sends the same request to both, in turns, over keep-alive connections, so that a machine
that speeds up or slows down does so for both.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.running import Running

Send = Callable[[http.client.HTTPConnection, dict[str, Any]], float]


def whole_ms(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    """Milliseconds until the whole answer is there."""
    began = time.perf_counter()
    _post(connection, body).read()
    return (time.perf_counter() - began) * 1000


def first_event_ms(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    """Milliseconds until the first event of a stream is there; the rest is read, but not timed.

    Both sides close a connection after a stream, so each gets a new one.
    """
    connection.close()
    began = time.perf_counter()
    response = _post(connection, body | {"stream": True})
    response.readline()
    spent = (time.perf_counter() - began) * 1000
    response.read()
    return spent


def _post(connection: http.client.HTTPConnection, body: dict[str, Any]) -> http.client.HTTPResponse:
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise SystemExit(f"the server answered {response.status}: {response.read()[:300]!r}")
    return response


def compare(running: Running, name: str, send: Send, pairs: int, max_tokens: int) -> None:
    """Measure and print the medians of both sides, of their differences and of their ratios."""
    api = http.client.HTTPConnection(*running.api, timeout=120)
    bare = http.client.HTTPConnection(*running.model_server, timeout=120)
    body = {
        "messages": [{"role": "user", "content": "Say one word."}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    for _ in range(5):
        send(bare, body), send(api, body)
    times = [
        (send(bare, body), send(api, body)) if pair % 2 else (send(api, body), send(bare, body))[::-1]
        for pair in range(pairs)
    ]
    added = sorted(ours - theirs for theirs, ours in times)
    ratios = [ours / theirs for theirs, ours in times]
    print(
        f"{name}: bare {statistics.median(theirs for theirs, _ in times):.2f} ms, "
        f"through the API {statistics.median(ours for _, ours in times):.2f} ms, "
        f"added {statistics.median(added):.2f} ms (quarter to quarter "
        f"{added[len(added) // 4]:.2f} to {added[3 * len(added) // 4]:.2f}), "
        f"ratio {statistics.median(ratios):.3f}; {pairs} pairs",
        flush=True,
    )
    api.close()
    bare.close()
