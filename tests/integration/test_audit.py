"""Refused requests of a running server, as ``mistral-api audit`` shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from requests import Session
from requests.adapters import HTTPAdapter

from tests.support.processes import ROOT, Server, clean_environment


def _audit(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(DATA_DIR=str(data_dir))
    command = [str(Path(sys.executable).parent / "mistral-api"), "audit", *options]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# An address of this test alone: of one kind from one address only some lines a minute are written.
ADDRESS = "127.0.0.17"


class _FromAddress(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, source_address=(ADDRESS, 0))


def test_refused_requests_are_shown_with_address_and_route(server: Server) -> None:
    secret = "a-word-of-a-prompt"
    with Session() as client:
        client.mount("http://", _FromAddress())
        client.get(f"{server.url}/v1/models?q={secret}", headers={"Host": "evil.example"}, timeout=20)
        client.get(f"{server.url}/v1/conversations/{secret}", headers={"Origin": "https://evil.example"}, timeout=20)
        client.post(f"{server.url}/v1/chat/completions", data=f'{{"messages": "{secret}', timeout=20)
    lines = [json.loads(line) for line in _audit(server.data_dir, "--since", "1h", "--json").stdout.splitlines()]
    found = {(line["event"], line["address"], line["route"], line["status"]) for line in lines}
    assert found >= {
        ("host_not_allowed", ADDRESS, "/v1/models", 421),
        ("origin_not_allowed", ADDRESS, "/v1/conversations/<session_id>", 403),
        ("malformed_request", ADDRESS, "/v1/chat/completions", 400),
    }
    assert secret not in (server.data_dir / "logs" / "audit.jsonl").read_text()
    table = _audit(server.data_dir, "--event", "host_not_allowed", "--sum").stdout
    assert "host_not_allowed" in table
    assert "origin_not_allowed" not in table


def test_nothing_on_record_is_an_empty_table(tmp_path: Path) -> None:
    shown = _audit(tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "event" in shown.stdout


def test_period_that_is_none_is_refused(tmp_path: Path) -> None:
    shown = _audit(tmp_path, "--since", "yesterday")
    assert shown.returncode == 2
    assert "30m, 24h or 7d" in shown.stderr
