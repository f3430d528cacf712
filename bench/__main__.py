"""``python3 bin/bench [latency] [recording] [reads] [far-reads] [validation] [recognition] [warm] [owners]``."""

from __future__ import annotations

import argparse

from bench.far_reads import measure_far_reads
from bench.latency import Side, compare, time_first_event, time_response
from bench.memory import print_memory
from bench.owners import measure_owners
from bench.reads import measure_reads
from bench.recognition import measure_recognition
from bench.recording import measure_journal, measure_outage, measure_writer
from bench.running import running_stack
from bench.validation import measure_validation
from bench.warm import measure_warm_restart

PARTS = ("latency", "recording", "reads", "far-reads", "validation", "recognition", "warm", "owners")
# The parts that start what they need, and have no options.
_OTHERS = {
    "validation": measure_validation,
    "recognition": measure_recognition,
    "warm": measure_warm_restart,
    "owners": measure_owners,
}


def main() -> None:
    """Start the servers that the chosen parts need, measure, print, and stop them."""
    options = _parse_options()
    if "latency" in options.parts:
        _measure_latency(options.pairs)
    if "recording" in options.parts:
        with running_stack() as running:
            measure_journal(running, options.pairs)
        measure_writer()
        measure_outage()
    if "reads" in options.parts:
        with running_stack() as running:
            measure_reads(running, options.usage_rows, options.messages)
    if "far-reads" in options.parts:
        with running_stack() as running:
            measure_far_reads(running)
    for part, measure in _OTHERS.items():
        if part in options.parts:
            measure()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what Mistral Local API costs.")
    parser.add_argument("parts", nargs="*", default=["latency"], metavar="PART", help=f"any of {', '.join(PARTS)}")
    parser.add_argument("--pairs", type=int, default=100, help="paired requests for each figure (default 100)")
    parser.add_argument("--usage-rows", type=int, default=10_000_000, help="rows for reads (default 10 million)")
    parser.add_argument("--messages", type=int, default=2_000_000, help="messages for reads (default 2 million)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return options


def _measure_latency(pairs: int) -> None:
    with running_stack() as running:
        key = {"Authorization": f"Bearer {running.model_server_key}"}
        sides = Side("bare", running.model_server, key), Side("through the API", running.api)
        compare("one token", sides, time_response, pairs, max_tokens=1)
        compare("first event of a stream", sides, time_first_event, pairs, max_tokens=1)
        compare("stream of 64 tokens, first event", sides, time_first_event, pairs // 4, max_tokens=64)
        print_memory(running)


if __name__ == "__main__":
    main()
