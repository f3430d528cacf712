"""The programs of ``bin/bench``: what the fake engine sends, what the generator of load counts, what Ctrl-C leaves."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from bench.__main__ import GROUPS, LONG, PARTS, SCENARIOS, main, usual_scenarios
from bench.figures import Figures
from bench.holding import held_connections
from bench.kept_connection import KeptConnection
from bench.paths import EnginePath
from bench.plan import Plan
from bench.programs import BenchmarkError, FakeEngine, fake_engine, generate_load, program
from bench.results import read_results
from mistral_api.system.exit_codes import INTERRUPTED
from mistral_api.system.processes import stop_signals
from tests.support.processes import ROOT

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    """The fake engine, whose answers have three tokens."""
    with fake_engine(tokens=3) as running:
        yield running


def _post(engine: FakeEngine, **fields: object) -> requests.Response:
    body = {"messages": [{"role": "user", "content": "Hello."}], **fields}
    return requests.post(f"http://127.0.0.1:{engine.port}/v1/chat/completions", json=body, timeout=10)


def test_it_looks_like_llama_cpp(engine: FakeEngine) -> None:
    answers = {
        path: requests.get(f"http://127.0.0.1:{engine.port}{path}", timeout=10).json()
        for path in ("/health", "/v1/models", "/props", "/slots")
    }
    assert answers["/health"] == {"status": "ok"}
    assert answers["/v1/models"]["data"][0]["owned_by"] == "llamacpp"
    assert answers["/props"]["total_slots"] == len(answers["/slots"])


def test_an_answer_has_as_many_tokens_as_are_asked_for(engine: FakeEngine) -> None:
    assert _post(engine).json()["usage"]["completion_tokens"] == 3
    answer = _post(engine, max_tokens=5).json()
    assert answer["choices"][0]["message"]["content"] == " word" * 5
    assert answer["timings"]["predicted_n"] == 5


def test_a_stream_is_one_of_llama_cpp(engine: FakeEngine) -> None:
    response = _post(engine, max_tokens=2, stream=True, stream_options={"include_usage": True})
    assert response.headers["Transfer-Encoding"] == "chunked"
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]] == [
        None,
        " word",
        " word",
        None,
    ]
    assert chunks[-1]["usage"]["completion_tokens"] == 2


def test_answers_differ_where_that_is_asked_for() -> None:
    with fake_engine(tokens=2, distinct=1) as engine:
        answers = [_post(engine).json()["choices"][0]["message"]["content"] for _ in range(2)]
        stream = _post(engine, stream=True).text
    assert answers == [" word1 word", " word2 word"]
    assert '"content":" word3"' in stream


def test_a_light_connection_reads_whole_answers_and_streams_and_is_kept(engine: FakeEngine) -> None:
    with contextlib.closing(KeptConnection(engine.port)) as connection:
        answer = connection.post("/v1/chat/completions", {"messages": []})
        assert (answer.status, answer.json()["usage"]["completion_tokens"]) == (200, 3)
        assert answer.header(b"content-type") == "application/json; charset=utf-8"
        stream = connection.post("/v1/chat/completions", {"messages": [], "stream": True})
        assert stream.body.count(b"data: ") == 1 + 3 + 1 + 1  # the role, the tokens, the end and [DONE]
        assert connection.ask("GET", "/nowhere").status == 404
        connection.leave_after_first_bytes("/v1/chat/completions", {"messages": [], "stream": True})
        assert connection.ask("GET", "/health").json() == {"status": "ok"}


def test_connections_are_held_once_they_have_been_answered(engine: FakeEngine) -> None:
    path = EnginePath("direct", engine.port)
    with held_connections(path, 20, {"messages": []}, answered=True) as found:
        pass
    assert found["statuses"] == {"200": 20}
    assert (found["connections"], found["closed"]) == (20, 0)


def test_requests_are_counted_with_their_times(engine: FakeEngine) -> None:
    found = generate_load("requests", engine.port, {"messages": []}, clients=4, seconds=0.2, warm_up=0)
    assert set(found["statuses"]) == {"200"}
    assert found["connections"] == 4  # each keeps its own
    assert found["closed"] == 0
    latency = found["latency"]
    assert latency["count"] == found["statuses"]["200"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


def test_the_events_of_streams_are_counted_and_their_pace_is_kept(engine: FakeEngine) -> None:
    body = {"messages": [{"role": "user", "content": "rate=100 tokens=20 wait=50"}], "stream": True}
    found = generate_load("streams", engine.port, body, clients=10, deadline=10)
    assert (found["complete"], found["unfinished"]) == (10, 0)
    # The role, the tokens, the end and [DONE] of each.
    assert found["events"] == 10 * (1 + 20 + 1 + 1)
    assert found["first"]["p50"] >= 50
    assert found["latency"]["p50"] >= 50 + 19 * 10


def test_what_nobody_listens_on_is_counted_as_failed() -> None:
    with fake_engine() as ended:
        port = ended.port
    found = generate_load("streams", port, {"messages": []}, clients=3, deadline=5)
    assert (found["complete"], found["closed"]) == (0, 3)


def test_a_machine_without_a_compiler_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchmarkError, match="a C compiler named 'cc' is needed"):
        program("engine")


def test_the_documentation_has_every_scenario() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z-]+)` \|", text.split("## Scenarios")[1], flags=re.MULTILINE)
    assert sorted(documented) == sorted([*SCENARIOS, *GROUPS, *PARTS])


def test_what_takes_long_is_measured_only_where_it_is_named() -> None:
    assert set(usual_scenarios()) == set(SCENARIOS) - set(LONG)


def test_what_was_measured_before_ctrl_c_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure_some(_plan: Plan, figures: Figures) -> None:
        figures.add(("requests", "1 client", "ours"), "p50", 2.0, "ms")
        signal.raise_signal(signal.SIGINT)

    file = tmp_path / "results.json"
    monkeypatch.setitem(SCENARIOS, "requests", measure_some)
    monkeypatch.setattr(sys, "argv", ["bench", "requests", "--output", str(file)])
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    try:
        assert main() == INTERRUPTED
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.splitlines() == ["The measurement was interrupted."]
    assert [figure.values for figure in read_results(file)] == [[2.0]]
