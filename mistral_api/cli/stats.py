"""``mistral-api stats`` and ``mistral-api stats rebuild``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Literal

import click
from sqlalchemy.orm import Session
from tabulate import tabulate

from mistral_api.analytics.gpu_stats import CardStatistics
from mistral_api.analytics.periods import TimeWindow
from mistral_api.analytics.rebuild import count_rows, rebuild_rollups
from mistral_api.analytics.usage_stats import GroupUsage, UsageStats, usage_stats
from mistral_api.cli.database import command_engine

_GpuFigure = Literal["utilization_percent", "memory_used_bytes", "temperature_celsius", "power_watts"]
# Figures of a card: name in the statistics, unit, divisor to that unit, digits.
_GPU_FIGURES: tuple[tuple[_GpuFigure, str, int, int], ...] = (
    ("utilization_percent", "%", 1, 0),
    ("memory_used_bytes", "GiB", 1 << 30, 1),
    ("temperature_celsius", "°C", 1, 0),
    ("power_watts", "W", 1, 0),
)


@click.group(invoke_without_command=True)
@click.option("--hours", type=click.IntRange(1, 8760), default=24, show_default=True, help="How far back to look.")
@click.option("--by", type=click.Choice(["model", "endpoint", "key"]), help="One line for each.")
@click.pass_context
def stats(context: click.Context, hours: int, by: str | None) -> None:
    """Show requests, tokens and latencies of the last hours, as GET /v1/stats has them."""
    if context.invoked_subcommand is not None:
        return
    with command_engine() as engine, Session(engine) as session:
        found = usage_stats(session, TimeWindow.last(hours))
    since = datetime.fromtimestamp(found["window"]["start"], UTC)
    click.echo(f"Since {since:%Y-%m-%d %H:%M} UTC")
    click.echo(_grouped(found, by) if by else _summary(found))


def _summary(found: UsageStats) -> str:
    rows: list[list[object]] = [
        [f"requests {name}", found["requests"][name]] for name in ("total", "succeeded", "failed")
    ]
    rows += [[f"status {status}", number] for status, number in found["requests"]["by_status"].items()]
    rows += [[f"{name} tokens", number] for name, number in found["tokens"].items()]
    rows.append(["sessions", found["sessions"]])
    distributions = (
        ("latency, ms", found["latency_ms"]),
        ("time to first token, ms", found["time_to_first_token_ms"]),
        ("tokens per second", found["tokens_per_second"]),
    )
    rows += [
        [f"{label}, {figure}", _rounded(value)]
        for label, distribution in distributions
        for figure, value in distribution.items()
    ]
    rows += [[f"GPU {card['index']} {card['name']}, peaks", _peaks(card)] for card in found["gpu"]]
    return tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=("left", "right"))


def _peaks(card: CardStatistics) -> str:
    """Return the highest value of each figure in the window, in one line: ``97 %, 5.2 GiB, 71 °C, 120 W``."""
    texts = []
    for name, unit, divisor, digits in _GPU_FIGURES:
        peaks = [peak for point in card["series"] if (peak := point[name]["peak"]) is not None]
        texts.append(f"{max(peaks) / divisor:.{digits}f} {unit}" if peaks else f"- {unit}")
    return ", ".join(texts)


def _grouped(found: UsageStats, by: str) -> str:
    headers = [by, "requests", "failed", "prompt tokens", "cached", "completion tokens", "mean latency, ms"]
    rows = [
        [
            name or "-",
            entry["requests"]["total"],
            entry["requests"]["failed"],
            entry["tokens"]["prompt"],
            entry["tokens"]["cached"],
            entry["tokens"]["completion"],
            _rounded(entry["latency_ms"]["mean"]),
        ]
        for name, entry in _groups(found, by)
    ]
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=alignment if rows else None)


def _groups(found: UsageStats, by: str) -> list[tuple[str | None, GroupUsage]]:
    """Return the usage of each model, endpoint or key, with its name."""
    if by == "model":
        return [(entry["model"], entry) for entry in found["by_model"]]
    if by == "endpoint":
        return [(entry["endpoint"], entry) for entry in found["by_endpoint"]]
    return [(entry["key"], entry) for entry in found["by_key"]]


def _rounded(value: object) -> str:
    return "-" if value is None else f"{value:.1f}"


@stats.command()
def rebuild() -> None:
    """Sum up all usage rows anew. What retention has deleted stays in the sums as it was."""
    with command_engine() as engine:
        total, hidden = count_rows(engine), not sys.stderr.isatty()
        with click.progressbar(length=total, label="Summing up", file=sys.stderr, hidden=hidden) as bar:
            count = rebuild_rollups(engine, bar.update)
    click.echo(f"{count} usage rows summed up.")
