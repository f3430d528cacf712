"""``python bin/bench``: the cost of the API over the bare model server."""

from __future__ import annotations

import argparse

from bench.latency import compare, first_event_ms, whole_ms
from bench.memory import print_memory
from bench.running import running_server


def main() -> None:
    """Start a server, measure, print, stop it."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="paired requests for each figure (default 100)")
    options = parser.parse_args()
    with running_server() as running:
        compare(running, "one token", whole_ms, options.pairs, max_tokens=1)
        compare(running, "first event of a stream", first_event_ms, options.pairs, max_tokens=1)
        compare(running, "stream of 64 tokens, first event", first_event_ms, options.pairs // 4, max_tokens=64)
        print_memory(running)


if __name__ == "__main__":
    main()
