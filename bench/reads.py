"""Measure how long reads take in a database of the size that years of use produce."""

from __future__ import annotations

import http.client
import statistics
import time
from urllib.parse import quote

from sqlalchemy import create_engine

from bench.filling import LONG_CONVERSATIONS, fill_database
from bench.running import RunningStack
from mistral_api.embedded.postgres import start_embedded_postgres

WARM_UP, REPEATS = 10, 50


def measure_reads(running: RunningStack, usage_rows: int, messages: int) -> None:
    """Fill the server's database, then print how long the API takes to read from it."""
    url = start_embedded_postgres(running.data_dir).url
    engine = create_engine(url)
    fill_database(engine, usage_rows, messages)
    engine.dispose()
    for what, path in _PATHS:
        _print_times(running, what, path)


_PATHS = [
    ("statistics of a day", "/v1/stats?hours=24"),
    ("statistics of a week", "/v1/stats?hours=168"),
    ("statistics of a year", "/v1/stats?hours=8760"),
    ("newest 50 of 1000 messages", f"/v1/conversations/session-{LONG_CONVERSATIONS}?limit=50"),
    ("list of 20 conversations", "/v1/conversations?limit=20"),
    *(
        (f"search for {what}", f"/v1/conversations?limit=20&q={quote(words)}")
        for what, words in (
            ("a word in most messages", "word0"),
            ("a common word", "word20"),
            ("a word in some newer conversations", "word300"),
            ("a word in few newer conversations", "word1000"),
            ("a rare word", "word19876"),
            ("a word that is nowhere", "nowhere"),
            ("two words", "word300 word4000"),
            ("a phrase", '"word0 word1"'),
            ("a word of a title", "4711"),
        )
    ),
]


def _print_times(running: RunningStack, what: str, path: str) -> None:
    connection = http.client.HTTPConnection(*running.api, timeout=120)
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        times.append((time.perf_counter() - began) * 1000)
        if response.status != http.client.OK:
            raise SystemExit(f"{path} answered {response.status}: {body[:300]!r}")
    connection.close()
    times = times[WARM_UP:]
    print(f"read: {what}: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms", flush=True)
