"""Time to first token of a long conversation: cold, warm, and after a planned restart of the model server."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from typing import Any

import psutil

from bench.first_event import time_first_event
from bench.running import RunningStack, running_stack

CONVERSATIONS = 3
RESTART_SECONDS = 60.0
# About 2,000 tokens of the demo model.
PROMPT_LINES = 290


def measure_warm_restart() -> None:
    """Send the same next turn of each conversation cold, warm, and after a restart; print the times and cache sizes."""
    with running_stack(CONTEXT_SIZE="16384", LOG_LEVEL="INFO") as running:
        _time_turns(running, "cold")
        _time_turns(running, "warm")
        seconds = restart_model_server(running)
        _time_turns(running, "after a warm restart")
        sizes = [path.stat().st_size / 2**20 for path in (running.data_dir / "slots").glob("*.kv")]
        print(f"restart of the model server, saving and restoring included: {seconds:.2f} s")
        print(f"saved caches: {len(sizes)} of {statistics.mean(sizes):.1f} MB; the times are in the log above")


def _time_turns(running: RunningStack, when: str) -> None:
    connection = http.client.HTTPConnection(*running.api, timeout=300)
    times = [time_first_event(connection, _body(number)) for number in range(CONVERSATIONS)]
    tokens = _post_chat(connection, _body(0))["usage"]["prompt_tokens"]
    connection.close()
    print(f"first token of {tokens} tokens, {when}: {statistics.median(times):.0f} ms of {CONVERSATIONS}", flush=True)


def _body(number: int) -> dict[str, Any]:
    text = f"Log {number}. " + " ".join(f"line {number}-{line}," for line in range(PROMPT_LINES))
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": 2, "temperature": 0, "session_id": f"bench-{number}"}


def _post_chat(connection: http.client.HTTPConnection, body: dict[str, Any]) -> Any:
    connection.close()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read())


def restart_model_server(running: RunningStack) -> float:
    """Stop the supervisor as an update does, and return the seconds until ``bin/serve``'s next one is ready."""
    began, before = time.monotonic(), _model_server_state(running)["pid"]
    for process in psutil.Process(running.process.pid).children():
        if "mistral_api.supervisor" in process.cmdline():
            process.terminate()
    while time.monotonic() < began + RESTART_SECONDS:
        state = _model_server_state(running)
        if state["state"] == "ready" and state["pid"] not in (None, before):
            return time.monotonic() - began
        time.sleep(0.02)
    raise SystemExit("the model server did not come back; its output is above")


def _model_server_state(running: RunningStack) -> Any:
    """Return the model server's part of /health, whose status is 503 while the model server is down."""
    connection = http.client.HTTPConnection(*running.api, timeout=10)
    connection.request("GET", "/health")
    state = json.loads(connection.getresponse().read())["model_server"]
    connection.close()
    return state
