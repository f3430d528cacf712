"""The running API is checked against its OpenAPI document by schemathesis, with all of its checks.

The few examples here are the same in every run. CONTRACT_EXAMPLES sets the number of examples of each operation,
with other values in every run: 60 give about 18,000 requests in five minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT, Server

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Examples of each operation. With the documented examples that makes about 120 requests.
FEW = "2"


def test_every_response_matches_the_openapi_document_and_invalid_requests_are_refused(
    server: Server, tmp_path: Path
) -> None:
    asked_for = os.environ.get("CONTRACT_EXAMPLES")
    chosen = ["--phases=examples,fuzzing,stateful,coverage"] if asked_for else ["--phases=examples,fuzzing"]
    seed = [] if asked_for else ["--generation-deterministic"]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), f"--config-file={CONFIG}", "run",
            f"{server.url}/openapi.json", f"--max-examples={asked_for or FEW}", *chosen, *seed,
            "--no-color",
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
    assert server.health()["model_server"]["restarts"] == 0
