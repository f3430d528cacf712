"""Whether a server answers at once while thousands of connections are open, idle or with requests that wait."""

from __future__ import annotations

import contextlib
import http.client
import time
from typing import NamedTuple

from bench.figures import Figures, percentile
from bench.holding import held_connections
from bench.memory import MemorySampler
from bench.paths import OURS, EnginePath, running_paths
from bench.plan import Plan, rounds_of
from bench.programs import fake_engine


class Case(NamedTuple):
    """So many connections; ``asks``: each sends a request whose first token takes an hour."""

    connections: int
    asks: bool

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.connections} {'waiting requests' if self.asks else 'idle connections'}"


CASES = Case(5000, False), Case(1000, True), Case(4000, True)
PROBED = ("/health/live", "/health", "/v1/models")
PROBE_TIMEOUT_SECONDS, PROBE_PAUSE_SECONDS = 10.0, 0.02
OPEN_SECONDS = 60.0
# So that connections are what is measured, and not their bound.
_SETTINGS = {"MAX_CONNECTIONS": "8192"}


def measure_waiting(plan: Plan, figures: Figures) -> None:
    """Hold connections open, and time answers that need no model meanwhile."""
    with (
        fake_engine() as engine,
        running_paths(plan.paths(OURS), engine.port, other=plan.other, **_SETTINGS) as paths,
    ):
        for path in rounds_of(paths, plan.rounds):
            for case in CASES:
                _measure(path, case, plan.seconds, figures)


def _measure(path: EnginePath, case: Case, seconds: float, figures: Figures) -> None:
    body = {"messages": [{"role": "user", "content": "Wait. wait=3600000"}], "stream": True}
    where = "waiting", case.name, path.name
    with MemorySampler(path) as memory, held_connections(path, case.connections, body if case.asks else None) as found:
        for probed in PROBED:
            times = _probe(path.port, probed, seconds)
            figures.add(where, f"{probed} p50", percentile(times, 0.5), "ms")
            figures.add(where, f"{probed} slowest", max(times), "ms")
    figures.add(where, "memory each", memory.added / case.connections / 1024, "KB")
    figures.add(where, "closed", found["closed"], "")
    figures.add(where, "refused", sum(found["statuses"].values()), "")


def _probe(port: int, path: str, seconds: float) -> list[float]:
    """Ask for a path again and again on new connections; return the milliseconds of each answer."""
    times, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_SECONDS)
        began = time.monotonic()
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            connection.getresponse().read()
        times.append((time.monotonic() - began) * 1000)
        connection.close()
        time.sleep(PROBE_PAUSE_SECONDS)
    return times
