"""``/metrics`` of a running server: what is documented, what the dashboard asks for, the model server's own."""

from __future__ import annotations

import re

import pytest
import requests

from tests.support.dashboards import metric_names, queries
from tests.support.metric_samples import samples_of, scrape, value
from tests.support.processes import ROOT, Server, wait_for

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
HEAD = re.compile(r"^# (HELP|TYPE) (\S+) (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def shown(server: Server) -> str:
    """What is shown after an answer."""
    for stream in (False, True):
        answer = requests.post(f"{server.url}/v1/chat/completions", json=CHAT | {"stream": stream}, timeout=60)
        assert answer.ok, answer.text

    def text() -> str | None:
        shown = requests.get(f"{server.url}/metrics", timeout=10).text
        return shown if value(samples_of(shown), "model_server_metrics_up", server="model-server") == 1 else None

    # An engine that still works at what another test has left answers no question meanwhile.
    found: str = wait_for(text, "the model server's own metrics")
    return found


def _heads(text: str) -> dict[str, dict[str, str]]:
    heads: dict[str, dict[str, str]] = {}
    for kind, name, rest in HEAD.findall(text):
        assert kind not in heads.setdefault(name, {}), f"{name} has two heads"
        heads[name][kind] = rest
    return heads


def test_every_metric_is_documented_as_it_is_shown(shown: str) -> None:
    section = (ROOT / "docs" / "operation.md").read_text().split("## Metrics\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(mistral_api_\w+)` \| (\w+) \|(.*?)\| (.*?) \|$", section, re.MULTILINE)
    heads = {name: head for name, head in _heads(shown).items() if name.startswith("mistral_api_")}
    assert [(name, kind, f"{text}.") for name, kind, _labels, text in documented] == [
        (name, head["TYPE"], head["HELP"]) for name, head in heads.items()
    ]
    labels = {name: set(re.findall(r"`(\w+)`", names)) for name, _kind, names, _text in documented}
    for name, pairs in samples_of(shown):
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in labels else name
        if family in labels:
            assert {label for label, _ in pairs} - {"le"} == labels[family], name


def test_answers_are_counted(server: Server, shown: str) -> None:
    samples, model = samples_of(shown), str(server.health()["model_server"]["model"])
    for name in ("prompt_tokens_total", "completion_tokens_total", "time_to_first_token_seconds_count"):
        assert (value(samples, name, model=model) or 0) > 0, name
    assert (value(samples, "tokens_per_second_sum", model=model) or 0) > 0
    assert value(samples, "model_server_state", server="model-server", state="ready") == 1
    assert value(samples, "slots", server="model-server") == 4
    assert (value(samples, "thread_wait_seconds_count") or 0) > 0
    assert (value(samples, "process_resident_memory_bytes") or 0) > 1 << 20
    wait_for(lambda: (value(scrape(server.url), "delivery_exchanges_total") or 0) >= 2, "delivery in the metrics")


def test_model_servers_own_metrics_have_its_name_and_model(server: Server, shown: str) -> None:
    model = str(server.health()["model_server"]["model"])
    labels = frozenset({("server", "model-server"), ("model", model)})
    samples = samples_of(shown)
    assert samples["llamacpp:tokens_predicted_total", labels] > 0
    assert ("llamacpp:requests_processing", labels) in samples
    assert value(samples, "model_server_metrics_up", server="model-server") == 1
    own = requests.get(f"{server.model_url}/metrics", headers=server.model_key, timeout=10).text
    assert set(_heads(own)) == {name for name in _heads(shown) if name.startswith("llamacpp:")}


def test_dashboard_asks_for_metrics_that_exist(shown: str) -> None:
    heads = _heads(shown)
    samples = {name for name, _ in samples_of(shown)} | set(heads)
    for query in queries():
        names = metric_names(query)
        assert names, query
        assert names <= samples, query


def test_every_metric_of_ours_is_on_the_dashboard(shown: str) -> None:
    shown_names = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries() for name in metric_names(query)}
    left_out = {
        *("model_context_tokens", "model_request_context_tokens", "model_offloaded_layers", "model_parameters"),
        *("model_server_metrics_up", "journal_writable"),
    }
    ours = {name for name in _heads(shown) if name.startswith("mistral_api_")}
    assert ours - shown_names == {f"mistral_api_{name}" for name in left_out}


def test_without_keys_only_this_machine_reads_metrics(server: Server) -> None:
    for headers in ({"X-Forwarded-For": "192.0.2.1"}, {"Host": "192.0.2.1:9000"}):
        assert requests.get(f"{server.url}/metrics", headers=headers, timeout=10).status_code == 401
