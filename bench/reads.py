"""Measure how long reads take in a database of the size that years of use produce."""

from __future__ import annotations

import http.client
import statistics
import time
from urllib.parse import quote

from sqlalchemy import create_engine
from tabulate import tabulate

from bench.corpus import english_word, russian_word
from bench.figures import Figures
from bench.filling import LONG_CONVERSATIONS, fill_database
from bench.plan import Plan
from bench.programs import BenchmarkError
from bench.running import RunningStack, running_stack
from bench.tables import format_number
from mistral_api.embedded.postgres import start_embedded_postgres

SCENARIO = "reads"
WARM_UP, REPEATS = 10, 50


def measure_reads(plan: Plan, figures: Figures) -> None:
    """Fill a server's database to each of the plan's sizes, and measure how long the API takes to read from it."""
    for usage_rows, messages in plan.database_sizes:
        with running_stack() as running:
            engine = create_engine(start_embedded_postgres(running.data_dir).url)
            fill_database(engine, usage_rows, messages)
            engine.dispose()
            for what, path in _PATHS:
                times = _times_of(running, path)
                where = SCENARIO, what, size_name(usage_rows, messages)
                figures.add(where, "median", statistics.median(times), "ms")
                figures.add(where, "slowest", max(times), "ms")


def size_name(usage_rows: int, messages: int) -> str:
    """Return the size of a database in words, in place of a path."""
    return f"{usage_rows:,} usage rows, {messages:,} messages"


def render_reads(figures: Figures) -> str:
    """Return a line for each read: its median at each size, how often the first one that is, and its slowest."""
    found = [figure for figure in figures if figure.scenario == SCENARIO]
    sizes = list(dict.fromkeys(figure.path for figure in found))
    rows = []
    for case in dict.fromkeys(figure.case for figure in found):
        medians, slowest = (
            [figures.find(SCENARIO, case, size, name) for size in sizes] for name in ("median", "slowest")
        )
        row = [case, *("" if cell is None else format_number(cell.median) for cell in medians)]
        first, last = medians[0], medians[-1]
        row.append("" if first is None or last is None else f"{last.median / first.median:.1f}")
        row += ["" if cell is None else format_number(cell.median) for cell in slowest]
        rows.append(row)
    heads = ["reads, ms", *sizes, "times", *(f"slowest of {size.partition(',')[0]}" for size in sizes)]
    return tabulate(rows, headers=heads, disable_numparse=True)


_PATHS = [
    ("statistics of a day", "/v1/stats?hours=24"),
    ("statistics of a week", "/v1/stats?hours=168"),
    ("statistics of a year", "/v1/stats?hours=8760"),
    ("newest 50 of 1000 messages", f"/v1/conversations/session-{LONG_CONVERSATIONS}?limit=50"),
    ("list of 20 conversations", "/v1/conversations?limit=20"),
    *(
        (f"search for {what}", f"/v1/conversations?limit=20&q={quote(words)}")
        for what, words in (
            ("the commonest word", english_word(0)),
            ("a common word", english_word(20)),
            ("a word in some newer conversations", english_word(300)),
            ("a word in few newer conversations", english_word(1000)),
            ("a rare word", english_word(19_876)),
            ("a word that is nowhere", "nowhere"),
            ("two words", f"{english_word(300)} {english_word(4000)}"),
            ("a word without another", f"{english_word(2000)} -{english_word(0)}"),
            ("a phrase", f'"{english_word(30)} {english_word(40)}"'),
            ("the end of a word", english_word(5000)[-4:]),
            ("part of a path", f"{english_word(700)}.py"),
            ("part of an address", f".example/{english_word(700)}"),
            ("part of a camel-case name", f"{english_word(700)}{english_word(900)}"[2:]),
            ("a short word", "py"),
            ("a short word that is nowhere", "q7"),
            ("a Chinese character", chr(0x4E00 + 40)),
            ("a Chinese word", chr(0x4E00 + 900) + chr(0x4E00 + 1200)),
            ("part of a Chinese sentence", chr(0x4E00) + chr(0x4E00 + 30) + chr(0x4E00 + 5)),
            ("part of a Russian word", russian_word(800)[1:5].upper()),
            ("a word of a title", "4711"),
        )
    ),
]


def _times_of(running: RunningStack, path: str) -> list[float]:
    """Return how long each of REPEATS reads takes, in milliseconds. Raises BenchmarkError."""
    connection = http.client.HTTPConnection(*running.api, timeout=120)
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        times.append((time.perf_counter() - began) * 1000)
        if response.status != http.client.OK:
            raise BenchmarkError(f"{path} answered {response.status}: {body[:300]!r}")
    connection.close()
    return times[WARM_UP:]
