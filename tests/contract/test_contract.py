"""The running API is checked against its OpenAPI document by schemathesis, with all of its checks.

The few examples here are the same in every run. CONTRACT_EXAMPLES sets the number of examples of each operation,
with other values in every run: 60 give about 18,000 requests in five minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Server, running_server, temporary_data_dir

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Examples of each operation. With the documented examples that makes about 120 requests.
FEW = "2"
ADMIN_SECRET = "the-secret-of-the-operator"


@pytest.fixture(scope="module")
def keyed_server() -> Iterator[Server]:
    """A server of its own: requests make API keys on it, and from the first one on it needs one."""
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, CONTEXT_SIZE="8192", ADMIN_API_KEY=ADMIN_SECRET) as server,
    ):
        yield server


def test_every_response_matches_the_openapi_document_and_invalid_requests_are_refused(
    keyed_server: Server, tmp_path: Path
) -> None:
    asked_for = os.environ.get("CONTRACT_EXAMPLES")
    chosen = ["--phases=examples,fuzzing,stateful,coverage"] if asked_for else ["--phases=examples,fuzzing"]
    seed = [] if asked_for else ["--generation-deterministic"]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), f"--config-file={CONFIG}", "run",
            f"{keyed_server.url}/openapi.json", f"--max-examples={asked_for or FEW}", *chosen, *seed,
            "--no-color", f"--header=Authorization: Bearer {ADMIN_SECRET}",
        ],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=1800,
    )  # fmt: skip
    sys.stdout.write(done.stdout[-1000:])
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made is not None, done.stdout
    assert int(made[1]) == int(made[2]) >= 100
    assert re.search(r"Selected: (\d+)/\1\n", done.stdout), "not every operation was tested"
    assert keyed_server.health()["model_server"]["restarts"] == 0
