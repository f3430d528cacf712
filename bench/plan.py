"""How much is measured, and on which paths."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paths import OTHER, OURS, EnginePath, path_of_processes
from bench.peers import LITELLM


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: so many rounds, so many seconds each, on these paths; ``other`` is another checkout.

    ``clients`` and ``streams`` are the numbers of clients of the scenarios that have several.
    ``servers``: other web servers that run our application; ``processes``: our own with so many API processes.
    ``requests``: how many the soak sends.
    ``database_sizes``: the usage rows and messages of the databases that are read from.
    """

    rounds: int = 3
    seconds: float = 2.0
    peers: bool = False
    other: Path | None = None
    without: frozenset[str] = frozenset()
    clients: tuple[int, ...] = (1, 16, 64)
    streams: tuple[int, ...] = (32, 300, 1000)
    servers: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    requests: int = 100_000
    database_sizes: tuple[tuple[int, int], ...] = ((100_000, 20_000), (10_000_000, 2_000_000))

    def describe(self) -> dict[str, Any]:
        """Return the plan as it stands in a file of results."""
        return {
            "rounds": self.rounds,
            "seconds": self.seconds,
            "peers": self.peers,
            "requests": self.requests,
            "database_sizes": self.database_sizes,
            "other": None if self.other is None else str(self.other),
        }

    def paths(self, *names: str) -> list[str]:
        """Return those of these paths that are to be measured, and after our own those that it is compared with."""
        chosen = [name for name in names if name not in self.without and (name != LITELLM or self.peers)]
        if OURS in chosen:
            chosen += map(path_of_processes, self.processes)
            chosen += [*self.servers, *[OTHER] * (self.other is not None)]
        return chosen


def rounds_of(paths: Sequence[EnginePath], rounds: int) -> Iterator[EnginePath]:
    """Yield every path once each round, in an order that changes from round to round; say on stderr which it is."""
    for number in range(rounds):
        shift = number % len(paths)
        for path in (*paths[shift:], *paths[:shift]):
            print(f"round {number + 1} of {rounds}: {path.name} ...", file=sys.stderr, flush=True)
            yield path
            path.settle()
