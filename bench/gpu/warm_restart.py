"""A long conversation after a restart: its first token with its cache restored onto the card, and without."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from bench.first_event import time_first_event
from bench.gpu.measurement import Measurement
from bench.running import RunningStack
from bench.warm import restart_model_server

SECTION = "warm restart"
# Tokens that a line of the prompt takes with the vocabulary that model_file.py writes.
_TOKENS_A_LINE = 8
# Half of the context that one request may use; without a card only the flow is tried.
_SHARE, _TRIAL_SHARE = 0.5, 0.02


def measure_warm_restart(measurement: Measurement, *, saved: bool) -> None:
    """Ask the same conversation cold, warm and after a restart. ``saved``: whether caches are saved meanwhile."""
    context, report = measurement.shape.context, measurement.report
    how = "with saved caches" if saved else "without"
    settings = {"PARALLEL": "2", "CONTEXT_SIZE": str(2 * context), "SLOT_SAVE_SECONDS": "300" if saved else "0"}
    share = _SHARE if measurement.has_card else _TRIAL_SHARE
    body = _body(int(context * share / _TOKENS_A_LINE))
    with measurement.stack(**settings) as running:
        cold = _time(running, body)
        warm = _time(running, body)
        tokens = _prompt_tokens(running, body)
        if saved:
            report.add(SECTION, "prompt of the conversation", tokens, "tokens")
            report.add(SECTION, "first token, cold", cold, "ms")
            report.add(SECTION, "first token, warm", warm, "ms")
        report.add(SECTION, f"restart until ready, {how}", restart_model_server(running), "s")
        report.add(SECTION, f"first token after the restart, {how}", _time(running, body), "ms")
        if saved:
            sizes = [path.stat().st_size / 2**20 for path in (running.data_dir / "slots").glob("*.kv")]
            report.add(SECTION, "saved caches on the disk", sum(sizes), "MiB")


def _time(running: RunningStack, body: dict[str, Any]) -> float:
    connection = http.client.HTTPConnection(*running.api, timeout=300)
    try:
        return time_first_event(connection, body)
    finally:
        connection.close()
        # What the API tells the supervisor of a conversation, it tells a moment later.
        time.sleep(1.0)


def _prompt_tokens(running: RunningStack, body: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection(*running.api, timeout=300)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    tokens: int = json.loads(connection.getresponse().read())["usage"]["prompt_tokens"]
    connection.close()
    return tokens


def _body(lines: int) -> dict[str, Any]:
    text = "A log. " + " ".join(f"line {line}," for line in range(lines))
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": 2, "temperature": 0, "session_id": "a-long-conversation"}
