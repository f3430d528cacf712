"""The model servers' own metrics: names kept, labels added, one head for a family of two servers."""

from __future__ import annotations

import pytest
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from mistral_api.metrics.engine_metrics import labelled, merge
from mistral_api.metrics.exposition import encode

LLAMA = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 31
# HELP llamacpp:n_tokens_max Largest observed sequence
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 42
# HELP llamacpp:requests_processing Number of requests
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
"""
VLLM = """\
# HELP vllm:e2e_request_latency_seconds Latency, with "quotes", a \\\\ and {braces}.
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.5",model_name="a\\"b"} 1.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="a\\"b"} 2.0
vllm:e2e_request_latency_seconds_count{model_name="a\\"b"} 2.0
vllm:e2e_request_latency_seconds_sum{model_name="a\\"b"} 1.5
# HELP mistral_api_requests_total Not ours
# TYPE mistral_api_requests_total counter
mistral_api_requests_total 7
"""


def _merged(*texts: tuple[str, str]) -> str:
    families: dict[str, Metric] = {}
    for server, text in texts:
        merge(families, labelled(text, {"server": server, "model": f"{server} model"}))
    return encode(list(families.values()), generate_latest).decode()


def test_two_servers_share_the_head_of_a_family() -> None:
    text = _merged(("one", LLAMA), ("two", LLAMA))
    assert text.count("# TYPE llamacpp:prompt_tokens_total counter\n") == 1
    assert text.count("# HELP llamacpp:prompt_tokens_total ") == 1
    for server in ("one", "two"):
        assert f'llamacpp:prompt_tokens_total{{model="{server} model",server="{server}"}} 31.0\n' in text


def test_counter_that_does_not_end_with_total_keeps_its_name() -> None:
    text = _merged(("one", LLAMA))
    assert "# TYPE llamacpp:n_tokens_max untyped\n" in text
    assert "llamacpp:n_tokens_max{" in text
    assert "llamacpp:n_tokens_max_total" not in text


def test_histograms_keep_their_labels_and_nobody_writes_metrics_of_our_names() -> None:
    text = _merged(("one", VLLM))
    assert (
        'vllm:e2e_request_latency_seconds_bucket{le="0.5",model="one model",model_name="a\\"b",server="one"} 1' in text
    )
    assert "mistral_api_" not in text


def test_families_are_valid_in_openmetrics_too() -> None:
    families: dict[str, Metric] = {}
    merge(families, labelled(LLAMA + VLLM, {"server": "one", "model": "m"}))
    text = encode(list(families.values()), generate_openmetrics).decode()
    assert "llamacpp:prompt_tokens_total{" in text
    assert {
        family.name
        for family in parse_openmetrics(text)  # type: ignore[no-untyped-call]
    } >= {"llamacpp:prompt_tokens", "llamacpp:n_tokens_max"}


@pytest.mark.parametrize("text", ["<html><body>not found</body></html>", "name{label=", "{}"])
def test_what_is_no_such_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        labelled(text, {})
