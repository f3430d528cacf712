"""``bin/serve --api-only``: the API without its own supervisor, under a service manager."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests

from tests.support.metric_samples import scrape, value
from tests.support.notify_listener import open_listener
from tests.support.processes import launch_server, programs_of, wait_for

NOT_READY = "is not ready: no model server runs; bin/supervisor starts one. Requests get 503 until it is."
CHAT = {"messages": [{"role": "user", "content": "Hello?"}]}


@pytest.mark.skipif(sys.platform == "win32", reason="the protocol is systemd's")
def test_api_only_serves_without_a_model_and_notifies_the_service_manager(data_dir: Path) -> None:
    settings = {"WATCHDOG_USEC": "400000", "MODEL_WAIT_SECONDS": "0", "SHUTDOWN_SECONDS": "1"}
    with (
        open_listener(data_dir.parent) as manager,
        launch_server(data_dir, "--api-only", NOTIFY_SOCKET=manager.address, **settings) as server,
    ):
        wait_for(lambda: NOT_READY in server.log(), "the line that says why it is not ready")
        assert [said.partition("=")[0] for said in manager.received()[:2]] == ["EXTEND_TIMEOUT_USEC", "READY"]
        wait_for(lambda: manager.received().count("WATCHDOG=1") >= 3, "a watchdog that is fed")
        assert "STATUS=not ready: no model server runs; bin/supervisor starts one" in manager.datagrams

        assert requests.get(f"{server.url}/health/live", timeout=10).status_code == 200
        answer = requests.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        metrics = scrape(server.url)
        assert value(metrics, "model_server_metrics_up", server="model-server") == 0
        assert not [name for name, _ in metrics if name.startswith("llamacpp:")]
        assert not [each for each in programs_of(data_dir) if "mistral_api.supervisor" in each.command]

        assert server.stop() == 0
        assert manager.received().index("STOPPING=1") > manager.datagrams.index("READY=1")
        asked = next(
            said for said in manager.datagrams[manager.datagrams.index("STOPPING=1") :] if said.startswith("EXTEND")
        )
        assert float(asked.partition("=")[2]) / 1e6 > 60
