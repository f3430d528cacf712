"""``python3 bin/bench [SCENARIO ...]``: what this server costs; ``--help`` lists the scenarios."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.curves import render_growth
from bench.far_reads import measure_far_reads
from bench.figures import Figures
from bench.growth import measure_growth
from bench.journal_commits import measure_commits
from bench.load import measure_messages, measure_recording_cost, measure_requests, measure_streams
from bench.memory import measure_memory
from bench.owners import measure_owners
from bench.plan import Plan
from bench.plot import write_plot
from bench.programs import BenchmarkError
from bench.reads import measure_reads, render_reads
from bench.real_engine import measure_real_engine
from bench.recognition import measure_recognition
from bench.recording import measure_outage, measure_writer
from bench.results import RESULTS, read_results, write_results
from bench.running import running_stack
from bench.soak import measure_soak, render_soak
from bench.startup import measure_startup
from bench.tables import render_comparison, render_table
from bench.validation import measure_validation
from bench.waiting import measure_waiting
from bench.warm import measure_warm_restart
from bench.wsgi_servers import WORKERS
from mistral_api.system.exit_codes import INTERRUPTED, ExitCode
from mistral_api.system.exit_signals import exit_at_stop_signals

# What is compared on several ways to the engine, in rounds; its figures are kept.
SCENARIOS: dict[str, Callable[[Plan, Figures], None]] = {
    "requests": measure_requests,
    "streams": measure_streams,
    "messages": measure_messages,
    "engine": measure_real_engine,
    "memory": measure_memory,
    "startup": measure_startup,
    "waiting": measure_waiting,
    "recorded": measure_recording_cost,
    "growth": measure_growth,
    "soak": measure_soak,
    "reads": measure_reads,
}
# Those that take long: only where they are named.
LONG = ("growth", "soak", "reads")
# Scenarios with tables of their own.
TABLES: dict[str, Callable[[Figures], str]] = {"growth": render_growth, "soak": render_soak, "reads": render_reads}
# Several of them under one name.
GROUPS = {"load": ("requests", "streams")}
# Parts that print their own figures, which are not kept.
PARTS = ("recording", "far-reads", "validation", "recognition", "warm", "owners")


def main() -> int:
    """Measure what is asked for, print it, write the results; return an ExitCode, INTERRUPTED after Ctrl-C."""
    options = _parse_options()
    with exit_at_stop_signals():  # so that whatever stops us, every server is stopped
        pass
    try:
        old = None if options.compare is None else read_results(options.compare)
        figures = _measure(options) if options.read is None else _show(options.read)
        if options.plot is not None:
            write_plot(options.plot, figures)
        if old is not None:
            print(f"\nratios to {options.compare}:\n{render_comparison(old, figures)}")
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return ExitCode.CANNOT_START
    except KeyboardInterrupt:
        print("The measurement was interrupted.", file=sys.stderr)
        return INTERRUPTED
    return ExitCode.OK


def usual_scenarios() -> list[str]:
    """Return the scenarios that are measured where none is named."""
    return [name for name in SCENARIOS if name not in LONG]


def _table(figures: Figures, scenario: str) -> str:
    return TABLES[scenario](figures) if scenario in TABLES else render_table(figures, scenario)


def _show(file: Path) -> Figures:
    """Print the tables of a file of results, and return its figures. Raises BenchmarkError."""
    figures = read_results(file)
    for scenario in dict.fromkeys(figure.scenario for figure in figures):
        print(f"\n{_table(figures, scenario)}")
    return figures


def _measure(options: argparse.Namespace) -> Figures:
    chosen = [name for word in options.parts for name in GROUPS.get(word, (word,))] or usual_scenarios()
    plan, figures = _plan(options), Figures()
    for name in chosen:
        if name in SCENARIOS:
            try:
                SCENARIOS[name](plan, figures)
            finally:  # what was measured before Ctrl-C, or before a failure, is kept
                if figures:
                    write_results(options.output, figures, plan.describe())
            print(f"\n{_table(figures, name)}", flush=True)
        else:
            _measure_part(name)
    if figures:
        print(f"\nresults: {options.output}")
    return figures


def _measure_part(name: str) -> None:
    if name == "recording":
        measure_commits()
        measure_writer()
        measure_outage()
    elif name == "far-reads":
        with running_stack() as running:
            measure_far_reads(running)
    else:
        {
            "validation": measure_validation,
            "recognition": measure_recognition,
            "warm": measure_warm_restart,
            "owners": measure_owners,
        }[name]()


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        peers=options.peers,
        other=options.other,
        without=frozenset(options.without),
        clients=tuple(options.clients),
        streams=tuple(options.streams),
        servers=tuple(options.servers),
        processes=tuple(options.processes),
        requests=options.requests,
        database_sizes=tuple(zip(options.usage_rows, options.messages, strict=True)),
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure what Mistral Local API costs. docs/benchmarks.md says what is measured."
    )
    names = (*SCENARIOS, *GROUPS, *PARTS)
    defaults = Plan()
    rows, messages = zip(*defaults.database_sizes, strict=True)
    parser.add_argument(
        "parts",
        nargs="*",
        default=[],
        metavar="SCENARIO",
        help=f"any of {', '.join(names)}; none: {', '.join(usual_scenarios())}",
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="rounds of each scenario (default 3)")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="length of a measurement (default 2)")
    parser.add_argument("--clients", type=int, nargs="+", default=defaults.clients, help="default 1 16 64")
    parser.add_argument("--streams", type=int, nargs="+", default=defaults.streams, help="default 32 300 1000")
    parser.add_argument("--requests", type=int, default=defaults.requests, help="requests of the soak (default 100000)")
    parser.add_argument("--peers", action="store_true", help="measure LiteLLM and llama-cpp-python's server too")
    parser.add_argument("--without", nargs="+", default=[], metavar="PATH", help="leave these out, such as nginx")
    parser.add_argument(
        "--servers", nargs="+", default=[], choices=WORKERS, help="measure our application under these web servers too"
    )
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[], metavar="N", help="measure ours with N API processes too"
    )
    parser.add_argument(
        "--other", type=Path, metavar="DIR", help="measure the server of another checkout in turn with ours"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json", help="file of the results")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="older results: print the ratios to them")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, show these results")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an SVG of requests and streams")
    parser.add_argument(
        "--usage-rows", type=int, nargs="+", default=list(rows), help="sizes for reads (default 100000 10000000)"
    )
    parser.add_argument(
        "--messages", type=int, nargs="+", default=list(messages), help="messages of each (default 20000 2000000)"
    )
    options = parser.parse_args()
    if len(options.usage_rows) != len(options.messages):
        parser.error("--usage-rows and --messages need a number for each size")
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"unknown scenario {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
