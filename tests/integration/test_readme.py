"""The examples of README and docs/api.md work on the running server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.processes import ROOT, Server

FIRST_REQUESTS = (ROOT / "docs" / "api.md").read_text().split("## First requests\n")[1].split("\n## ")[0]
PYTHON = re.findall(r"```python\n(.*?)```", FIRST_REQUESTS, flags=re.DOTALL)
CURL = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def _for_server(server: Server, example: str) -> str:
    assert "http://127.0.0.1:9000" in example
    return example.replace("http://127.0.0.1:9000", server.url)


def test_there_are_one_curl_and_three_python_examples() -> None:
    assert (len(CURL), len(PYTHON)) == (1, 3)


def test_readme_curl_example_returns_text(server: Server) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", _for_server(server, CURL[0])], capture_output=True, text=True, timeout=60, check=True
    )
    answer, end = json.JSONDecoder().raw_decode(done.stdout)
    said = answer["choices"][0]["message"]["content"]
    assert said.strip()
    # The second request shows what was said.
    assert [message["content"] for message in json.loads(done.stdout[end:])["messages"]] == [
        "Hello, how are you?",
        said,
    ]


@pytest.mark.parametrize("example", PYTHON, ids=["requests", "chat", "responses"])
def test_python_examples_print_the_answer(server: Server, tmp_path: Path, example: str) -> None:
    script = tmp_path / "example.py"
    script.write_text(_for_server(server, example))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    said = requests.get(f"{server.url}/v1/conversations?limit=1", timeout=10).json()["data"][0]["session_id"]
    history = requests.get(f"{server.url}/v1/conversations/{said}", timeout=10).json()
    assert history["messages"][-1]["role"] == "assistant"
    assert history["messages"][-1]["content"].strip()[:20] in done.stdout
