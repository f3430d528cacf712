"""A minute of random requests to the parser, and of random streams to the relay: no crash, and the memory stays flat.

``FUZZ_INPUTS`` in the environment sets another number of inputs for each of both.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from random import Random

import psutil
import pytest

from mistral_api.errors import ApiError
from mistral_api.serving.held_bytes import HeldBytes
from tests.support.request_fuzz import feed, random_request, random_stream
from tests.unit.test_request_parser import make_parser
from tests.unit.test_sse_properties import relay_or_failure

SECONDS = 30.0
MOST_GROWTH = 20 << 20


def _parse(random: Random) -> str:
    held = HeldBytes(1 << 30)
    parser = make_parser(held)
    request = random_request(random)
    feed(parser, request, random.choice([1, 7, 64, 8192]))
    parser.close()
    assert held.total == 0
    error = parser.error
    if error is None:
        return "accepted" if parser.completed else "unfinished"
    status = error.status if isinstance(error, ApiError) else error.code
    assert 400 <= status < 500 or status == 501, request
    return str(status)


def _relay(random: Random) -> str:
    stream, size = random_stream(random), random.choice([1, 7, 64, 8192])
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    _, failure = relay_or_failure(pieces, show_progress=random.random() < 0.5)
    return "relayed" if failure is None else str(failure.status)


@pytest.mark.slow
@pytest.mark.parametrize("run", [_parse, _relay])
def test_random_inputs_crash_nothing_and_leave_nothing(run: Callable[[Random], str]) -> None:
    random, process, outcomes = Random(14), psutil.Process(), dict[str, int]()
    wanted = int(os.environ.get("FUZZ_INPUTS", "0"))
    began, done, before = time.monotonic(), 0, 0
    while done < wanted if wanted else time.monotonic() < began + SECONDS:
        outcome = run(random)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        done += 1
        if done == 5000:
            gc.collect()
            before = process.memory_info().rss
    gc.collect()
    growth = process.memory_info().rss - before
    spent = time.monotonic() - began
    print(f"{run.__name__}: {done} inputs in {spent:.0f} s, memory {growth / 1024:+.0f} KiB, {outcomes}")  # noqa: T201
    assert len(outcomes) > 2
    assert growth < MOST_GROWTH
