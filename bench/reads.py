"""Measure how long reads take in a database of the size that years of use produce."""

from __future__ import annotations

import http.client
import statistics
import time
from urllib.parse import quote

from sqlalchemy import create_engine

from bench.corpus import english_word, russian_word
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
