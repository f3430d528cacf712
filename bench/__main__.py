"""``python3 bin/bench [SCENARIO ...]``: what this server costs; ``--help`` lists the scenarios."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.far_reads import measure_far_reads
from bench.figures import Figures
from bench.journal_commits import measure_commits
from bench.load import measure_messages, measure_recording_cost, measure_requests, measure_streams
from bench.memory import measure_memory
from bench.owners import measure_owners
from bench.plan import Plan
from bench.plot import write_plot
from bench.programs import BenchmarkError
from bench.reads import measure_reads
from bench.real_engine import measure_real_engine
from bench.recognition import measure_recognition
from bench.recording import measure_outage, measure_writer
from bench.results import RESULTS, read_results, write_results
from bench.running import running_stack
from bench.startup import measure_startup
from bench.tables import render_comparison, render_table
from bench.validation import measure_validation
from bench.waiting import measure_waiting
from bench.warm import measure_warm_restart
from bench.wsgi_servers import WORKERS
from mistral_api.system.exit_codes import ExitCode
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
}
# Several of them under one name.
GROUPS = {"load": ("requests", "streams")}
# Parts that print their own figures, which are not kept.
PARTS = ("recording", "reads", "far-reads", "validation", "recognition", "warm", "owners")


def main() -> int:
    """Measure what is asked for, print it, write the results; return an ExitCode."""
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
    return ExitCode.OK


def _show(file: Path) -> Figures:
    """Print the tables of a file of results, and return its figures. Raises BenchmarkError."""
    figures = read_results(file)
    for scenario in dict.fromkeys(figure.scenario for figure in figures):
        print(f"\n{render_table(figures, scenario)}")
    return figures


def _measure(options: argparse.Namespace) -> Figures:
    chosen = [name for word in options.parts for name in GROUPS.get(word, (word,))] or list(SCENARIOS)
    plan, figures = _plan(options), Figures()
    for name in chosen:
        if name in SCENARIOS:
            SCENARIOS[name](plan, figures)
            print(f"\n{render_table(figures, name)}", flush=True)
            write_results(options.output, figures, plan.describe())
        else:
            _measure_part(name, options)
    if figures:
        print(f"\nresults: {options.output}")
    return figures


def _measure_part(name: str, options: argparse.Namespace) -> None:
    if name == "recording":
        measure_commits()
        measure_writer()
        measure_outage()
    elif name == "reads":
        with running_stack() as running:
            measure_reads(running, options.usage_rows, options.messages)
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
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure what Mistral Local API costs. docs/benchmarks.md says what is measured."
    )
    names = (*SCENARIOS, *GROUPS, *PARTS)
    defaults = Plan()
    parser.add_argument(
        "parts",
        nargs="*",
        default=[],
        metavar="SCENARIO",
        help=f"any of {', '.join(names)}; none: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="rounds of each scenario (default 3)")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="length of a measurement (default 2)")
    parser.add_argument("--clients", type=int, nargs="+", default=defaults.clients, help="default 1 16 64")
    parser.add_argument("--streams", type=int, nargs="+", default=defaults.streams, help="default 32 300 1000")
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
    parser.add_argument("--usage-rows", type=int, default=10_000_000, help="rows for reads (default 10 million)")
    parser.add_argument("--messages", type=int, default=2_000_000, help="messages for reads (default 2 million)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"unknown scenario {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
