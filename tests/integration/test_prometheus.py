"""Debian's Prometheus scrapes a running server with a key for `metrics`, and runs the queries of the dashboard."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.support.dashboards import FOLDER, metric_names, queries
from tests.support.processes import Server, launch_server, wait_for, wait_until_ready
from tests.support.prometheus_server import Prometheus, program, running_prometheus

ADMIN = {"Authorization": "Bearer the-secret-of-the-operator"}
EXAMPLE = (FOLDER / "prometheus.yml").read_text()


def _configuration(folder: Path, api: Server) -> Path:
    """Write the example's configuration for this server, with a key of its own that may do nothing else."""
    body = {"name": "prometheus", "scopes": ["metrics"]}
    made = requests.post(f"{api.url}/v1/keys", json=body, headers=ADMIN, timeout=10)
    assert made.status_code == 200, made.text
    key_file = folder / "key"
    key_file.write_text(made.json()["key"] + "\n")
    config = folder / "prometheus.yml"
    config.write_text(
        EXAMPLE.replace("127.0.0.1:9000", f"127.0.0.1:{api.api_port}")
        .replace("/etc/prometheus/mistral-api.key", str(key_file), 2)
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace("scrape_timeout: 10s", "scrape_timeout: 1s")
    )
    return config


@pytest.mark.slow
def test_prometheus_scrapes_the_server_and_knows_every_metric_of_the_dashboard(data_dir: Path) -> None:
    folder = data_dir.parent
    with launch_server(data_dir, ADMIN_API_KEY=ADMIN["Authorization"].removeprefix("Bearer ")) as api:
        wait_until_ready(api)
        config = _configuration(folder, api)
        subprocess.run([program("promtool"), "check", "config", str(config)], check=True, timeout=30)
        with running_prometheus(folder, config) as prometheus:
            wait_for(lambda: prometheus.query("up == 1"), "a scrape", 30)
            _send_requests(f"{api.url}/v1/chat/completions", (folder / "key").read_text().strip(), prometheus)
            _check_queries(prometheus)
        _check_with_promtool(requests.get(f"{api.url}/metrics", headers=ADMIN, timeout=10).text)


def _send_requests(url: str, metrics_key: str, prometheus: Prometheus) -> None:
    """Send requests that are answered, and one that is refused, between two scrapes."""
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True}
    for counted in (1, 2):
        assert requests.post(url, json=chat, headers=ADMIN, timeout=60).ok
        refused = requests.post(url, json=chat, headers={"Authorization": f"Bearer {metrics_key}"}, timeout=10)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        found = f'mistral_api_request_errors_total{{code="insufficient_scope"}} == {counted}'
        wait_for(partial(prometheus.query, found), "a scrape of the requests")


def _check_queries(prometheus: Prometheus) -> None:
    """Run every query of the dashboard; most find something, and none names a metric that is never there."""
    wait_for(
        lambda: prometheus.query("sum(increase(mistral_api_completion_tokens_total[1m])) > 0"), "tokens in Prometheus"
    )
    # Without a card, a restart, an error or a failed statement these have no value yet.
    sometimes = {"mistral_api_model_server_restarts_total", "mistral_api_database_query_errors_total"}
    known = prometheus.metric_names() | sometimes
    for query in queries():
        found = prometheus.query(query)
        names = {name for name in metric_names(query) if not name.startswith("mistral_api_gpu_")}
        assert names <= known, query
        may_be_empty = names & sometimes or not names
        assert found or may_be_empty, query


def _check_with_promtool(text: str) -> None:
    """Have promtool judge our metrics; llama.cpp's own have a colon in their names, which it does not like."""
    ours = "".join(line for line in text.splitlines(keepends=True) if "llamacpp:" not in line)
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=ours, capture_output=True, text=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
