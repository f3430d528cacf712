"""Compare the latency of one request on two servers, pair by pair.

Each pair sends the same request to both servers over keep-alive connections, in alternating order, so that
a change of the machine's speed affects both sides.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Measurement = Callable[[http.client.HTTPConnection, dict[str, Any]], float]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers that are compared: its label, its address, and what it wants to be sent."""

    name: str
    address: tuple[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)


class SideConnection(http.client.HTTPConnection):
    """A keep-alive connection to one of the servers, which sends its headers with each request."""

    def __init__(self, side: Side) -> None:
        super().__init__(*side.address, timeout=120)
        self._headers = side.headers

    def endheaders(self, *arguments: Any, **options: Any) -> None:
        """Send the headers."""
        for name, value in self._headers.items():
            self.putheader(name, value)
        super().endheaders(*arguments, **options)


def time_response(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    """Return the milliseconds until the whole response has arrived."""
    began = time.perf_counter()
    _post(connection, body).read()
    return (time.perf_counter() - began) * 1000


def time_first_event(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    """Return the milliseconds until the first event of a stream; the rest is read and not timed.

    Both servers close a connection after a stream, so each stream gets a new one.
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


def compare(name: str, sides: tuple[Side, Side], send: Measurement, pairs: int, max_tokens: int) -> None:
    """Measure and print the medians of both sides, and of the differences and ratios of the pairs."""
    first, second = map(SideConnection, sides)
    body = {
        "messages": [{"role": "user", "content": "Say one word."}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    for _ in range(5):
        send(first, body), send(second, body)
    times = [
        (send(first, body), send(second, body)) if pair % 2 else (send(second, body), send(first, body))[::-1]
        for pair in range(pairs)
    ]
    added = sorted(ours - theirs for theirs, ours in times)
    ratios = [ours / theirs for theirs, ours in times]
    print(
        f"{name}: {sides[0].name} {statistics.median(theirs for theirs, _ in times):.2f} ms, "
        f"{sides[1].name} {statistics.median(ours for _, ours in times):.2f} ms, "
        f"added {statistics.median(added):.2f} ms (quarter to quarter "
        f"{added[len(added) // 4]:.2f} to {added[3 * len(added) // 4]:.2f}), "
        f"ratio {statistics.median(ratios):.3f}; {pairs} pairs",
        flush=True,
    )
    first.close()
    second.close()
