"""The running API is checked against its OpenAPI document by schemathesis, with all of its checks.

The few examples here are the same in every run. CONTRACT_EXAMPLES sets the number of examples of each operation,
with other values in every run: 60 give about 18,000 requests in five minutes.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.processes import ROOT, Server, running_server, temporary_data_dir

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Examples of each operation. With the documented examples that makes about 120 requests.
FEW = "2"
ADMIN_SECRET = "the-secret-of-the-operator"


@contextlib.contextmanager
def _running(**settings: str) -> Iterator[Server]:
    with temporary_data_dir() as data_dir, running_server(data_dir, CONTEXT_SIZE="8192", **settings) as server:
        yield server


@pytest.mark.slow
def test_responses_match_the_openapi_document_and_invalid_requests_are_refused_with_a_key(tmp_path: Path) -> None:
    """The server is one of its own: requests make API keys on it."""
    with _running(ADMIN_API_KEY=ADMIN_SECRET) as server:
        _check(server, tmp_path, f"--header=Authorization: Bearer {ADMIN_SECRET}")


@pytest.mark.slow
def test_responses_match_the_openapi_document_and_invalid_requests_are_refused_without_keys(tmp_path: Path) -> None:
    with _running() as server:
        _check(server, tmp_path, "--exclude-tag=keys")


@pytest.mark.slow
def test_strangers_get_what_the_openapi_document_says(tmp_path: Path) -> None:
    """Every operation but /health answers 401, whatever else is wrong with a request."""
    with _running(ADMIN_API_KEY=ADMIN_SECRET) as server:
        document = requests.get(
            f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {ADMIN_SECRET}"}, timeout=20
        )
        (tmp_path / "openapi.json").write_bytes(document.content)
        done = _run(
            tmp_path, str(tmp_path / "openapi.json"), f"--url={server.url}", "--checks=not_a_server_error",
            "--checks=status_code_conformance", "--checks=response_schema_conformance", "--exclude-tag=health",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        used = requests.get(f"{server.url}/v1/stats", headers={"Authorization": f"Bearer {ADMIN_SECRET}"}, timeout=20)
        assert used.json()["requests"]["total"] == 0


def _check(server: Server, folder: Path, *options: str) -> None:
    done = _run(folder, f"{server.url}/openapi.json", *options)
    sys.stdout.write(done.stdout[-1000:])
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made is not None, done.stdout
    assert int(made[1]) == int(made[2]) >= 100
    selected = re.search(r"Selected: (\d+)/(\d+)\n", done.stdout)
    assert selected is not None, done.stdout
    left_out = 5 if "--exclude-tag=keys" in options else 0
    assert int(selected[2]) - int(selected[1]) == left_out, "not every operation was tested"
    assert server.health()["model_server"]["restarts"] == 0


def _run(folder: Path, document: str, *options: str) -> subprocess.CompletedProcess[str]:
    asked_for = os.environ.get("CONTRACT_EXAMPLES")
    chosen = ["--phases=examples,fuzzing,stateful,coverage"] if asked_for else ["--phases=examples,fuzzing"]
    seed = [] if asked_for else ["--generation-deterministic"]
    return subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), f"--config-file={CONFIG}", "run", document,
            f"--max-examples={asked_for or FEW}", *chosen, *seed, "--no-color", *options,
        ],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=1800,
    )  # fmt: skip
