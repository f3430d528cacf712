"""The whole stack is killed while a prompt is read: the next one records how much of it had been read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine_counts import most_processed
from tests.support.processes import running_server, wait_for
from tests.support.raw_requests import send_request
from tests.support.recorded_usage import recorded_usage

pytestmark = pytest.mark.slow


def test_part_of_a_prompt_that_was_read_is_recorded_after_a_kill(data_dir: Path) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 1500}], "max_tokens": 5, "stream": True}
    with (
        running_server(data_dir, CONTEXT_SIZE="8192") as server,
        send_request(server, "/v1/chat/completions", body, "X-Request-Id: killed"),
    ):
        # A checkpoint is written twice a second; reading so much takes longer.
        wait_for(lambda: most_processed(server) >= 400, "a part of the prompt")
        server.kill()
    with running_server(data_dir, CONTEXT_SIZE="8192") as server:
        usage = recorded_usage(server, "killed")
    assert (usage["status"], usage["error_code"]) == (500, "interrupted")
    assert 64 <= usage["prompt_tokens"] < 1500
    assert (usage["cached_tokens"], usage["completion_tokens"]) == (0, 0)
