"""/health, /v1/models and /v1/stats of the running server."""

import itertools
import time

import pytest
import requests

from tests.support.processes import Server, wait_for

GPU_FIGURES = {
    "index", "name", "utilization_percent", "memory_used_bytes", "memory_total_bytes", "temperature_celsius",
    "power_watts",
}  # fmt: skip
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.mark.usefixtures("idle_slots")
def test_health_reports_the_state_of_every_component(server: Server, http: requests.Session) -> None:
    answer = http.get(f"{server.url}/health", timeout=10)
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "ok")
    model_server = body["model_server"]
    assert (model_server["state"], model_server["model"]) == ("ready", "SmolLM2-135M-Instruct.Q4_1")
    assert (model_server["engine"], model_server["restarts"], model_server["context_size"]) == ("bundled", 0, 8192)
    assert model_server["slots"] == {"total": 4, "busy": 0}
    assert model_server["pid"] > 0
    assert (model_server["device"], model_server["gpu_layers"], model_server["memory"]["devices"]) == ("cpu", 0, [])
    assert model_server["memory"]["main_bytes"] > 100 << 20
    assert model_server["request_context_size"] == (8192 if model_server["unified_cache"] else 2048)
    assert body["attention"] == []
    assert (body["database"]["status"], body["database"]["schema"]) == ("ok", "current")
    assert body["database"]["latency_ms"] > 0
    assert sorted(body["recording"]) == ["oldest_pending_seconds", "pending", "rejected", "status"]
    assert all(card.keys() == GPU_FIGURES for card in body["gpu"])  # on a machine with or without GPUs
    assert body["uptime_seconds"] > 0
    assert body["version"]


def test_liveness_and_readiness_report_only_a_status(server: Server, http: requests.Session) -> None:
    assert http.get(f"{server.url}/health/live", timeout=10).json() == {"status": "ok"}
    assert http.get(f"{server.url}/health/ready", timeout=10).json() == {"status": "ok"}


def test_health_hides_process_ids_from_callers_behind_a_proxy(server: Server, http: requests.Session) -> None:
    body = http.get(f"{server.url}/health", headers={"X-Forwarded-For": "192.0.2.1"}, timeout=10).json()
    assert not body["model_server"].keys() & {"pid", "last_error", "device", "memory"}


def test_models_are_listed_with_context_window_and_state(server: Server, http: requests.Session) -> None:
    body = http.get(f"{server.url}/v1/models", timeout=10).json()
    assert body["object"] == "list"
    (model,) = body["data"]
    assert model["id"] == "SmolLM2-135M-Instruct.Q4_1"
    assert (model["object"], model["context_window"], model["state"]) == ("model", 2048, "ready")
    assert isinstance(model["created"], int)


def test_stats_count_requests_tokens_and_failures(server: Server, http: requests.Session, session_id: str) -> None:
    # Requests of other tests must not be counted in between.
    wait_for(lambda: server.slots_busy() == 0 and server.health()["recording"]["pending"] == 0, "a quiet server")
    before = http.get(f"{server.url}/v1/stats?hours=1", timeout=10).json()
    good = {"messages": HELLO, "max_tokens": 5, "ignore_eos": True, "session_id": session_id}
    usage = http.post(f"{server.url}/v1/chat/completions", json=good, timeout=60).json()["usage"]
    http.post(f"{server.url}/v1/chat/completions", json=good | {"temperature": 9}, timeout=60)
    http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10)
    deadline = time.monotonic() + 10
    after = before
    while after["requests"]["total"] < before["requests"]["total"] + 2:
        assert time.monotonic() < deadline
        after = http.get(f"{server.url}/v1/stats?hours=1", timeout=10).json()
    assert after["object"] == "usage.stats"
    assert after["requests"]["failed"] == before["requests"]["failed"] + 1
    assert after["requests"]["succeeded"] == before["requests"]["succeeded"] + 1
    assert after["requests"]["by_status"]["400"] == before["requests"]["by_status"].get("400", 0) + 1
    assert after["tokens"]["completion"] == before["tokens"]["completion"] + 5
    assert after["tokens"]["prompt"] == before["tokens"]["prompt"] + usage["prompt_tokens"]
    assert after["sessions"] == before["sessions"] + 1
    for spread in ("latency_ms", "time_to_first_token_ms"):
        figures = after[spread]
        assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"]
    assert after["tokens_per_second"]["p50"] > 0
    assert sum(point["requests"] for point in after["series"]) == after["requests"]["total"]
    for group, name in (("by_endpoint", "endpoint"), ("by_model", "model"), ("by_key", "key")):
        assert sum(entry["requests"]["total"] for entry in after[group]) == after["requests"]["total"]
        assert name in after[group][0]


def test_stats_of_a_long_window_have_one_point_a_day(server: Server, http: requests.Session) -> None:
    hourly = http.get(f"{server.url}/v1/stats?hours=168", timeout=10).json()["series"]
    daily = http.get(f"{server.url}/v1/stats?hours=720", timeout=10).json()["series"]
    assert len(hourly) in (168, 169)
    assert len(daily) in (30, 31)
    assert {later["start"] - earlier["start"] for earlier, later in itertools.pairwise(daily)} == {86400}
