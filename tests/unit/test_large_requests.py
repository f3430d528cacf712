"""Which requests are large, and where the work on them is done."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mistral_api.upstream.large_requests import LARGE_BYTES, is_large, work_on
from tests.support.event_loops import run_as_task, running_loop

LARGE = {"messages": [{"role": "user", "content": "x" * LARGE_BYTES}]}
SMALL = {"messages": [{"role": "user", "content": "x"}], "tools": [{}], "temperature": 1}


@pytest.mark.parametrize(
    ("payload", "large"),
    [
        (SMALL, False),
        (LARGE, True),
        ({"messages": [{"role": "user", "content": "x" * 90}] * 4000}, True),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x" * LARGE_BYTES}}]}]}, True),
        ({"prompt": "x" * LARGE_BYTES}, True),
        ({"prompt": list(range(LARGE_BYTES // 8))}, True),
        ({"prompt": ["x", 1, None]}, False),
        ({"tools": [{}] * 1000}, True),
        (None, False),
    ],
)
def test_the_prompt_makes_a_request_large(payload: Any, large: bool) -> None:
    assert is_large(payload) is large


def test_a_task_works_on_a_large_request_aside_alone() -> None:
    def name() -> str:
        return threading.current_thread().name

    here = name()
    assert work_on(LARGE, name) == here
    with running_loop() as loop:
        loop_thread = run_as_task(loop, name)
        assert run_as_task(loop, lambda: work_on(SMALL, name)) == loop_thread
        assert run_as_task(loop, lambda: work_on(LARGE, name)).startswith("event-loop-aside")
