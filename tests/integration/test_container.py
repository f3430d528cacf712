"""The image of ``deploy/Dockerfile``: its health check on a running server, and all of it where Docker runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import pytest
import requests

from tests.support.processes import ROOT, Server, free_port

IMAGE = "mistral-local-api:test"
BUILD_SECONDS = 1200
COMMAND_SECONDS = 60
HEALTHY_SECONDS = 120.0
STOP_SECONDS = 40


@cache
def _docker() -> str | None:
    """Return the path of Docker's command where its daemon answers."""
    program = shutil.which("docker")
    if program is None:
        return None
    done = subprocess.run([program, "info"], capture_output=True, timeout=COMMAND_SECONDS, check=False)
    return program if done.returncode == 0 else None


def _run_docker(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    done = subprocess.run(
        [_docker() or "docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout.strip()


def _health_check() -> list[str]:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    command: list[str] = json.loads(re.search(r"^ +CMD (\[.*\])$", text, re.MULTILINE)[1])  # type: ignore[index]
    return [sys.executable if word == "python" else word for word in command]


def _is_healthy(port: str) -> bool:
    done = subprocess.run(
        _health_check(), env=os.environ | {"API_PORT": port}, capture_output=True, timeout=COMMAND_SECONDS, check=False
    )
    return done.returncode == 0


def test_health_check_of_the_image_tells_a_server_that_serves_from_none(server: Server) -> None:
    assert _is_healthy(server.url.rpartition(":")[2])
    assert not _is_healthy(str(free_port()))


@pytest.fixture
def container() -> Iterator[tuple[str, int]]:
    """A container of the image with embedded defaults, and the port that it serves on."""
    if _docker() is None:
        pytest.skip("no Docker daemon answers here")
    network = [] if "bridge" in _run_docker("network", "ls", "--format", "{{.Driver}}").split() else ["--network=host"]
    _run_docker("build", *network, "-f", "deploy/Dockerfile", "-t", IMAGE, ".", seconds=BUILD_SECONDS)
    port = free_port()
    published = network or [f"--publish=127.0.0.1:{port}:{port}"]
    variables = [f"--env=API_PORT={port}", f"--env=MODEL_SERVER_PORT={free_port()}", "--env=CONTEXT_SIZE=8192"]
    name = _run_docker("run", "--detach", "--cap-drop=ALL", *published, *variables, IMAGE)
    try:
        yield name, port
    finally:
        _run_docker("rm", "--force", "--volumes", name)


@pytest.mark.slow
def test_container_becomes_healthy_answers_with_its_first_key_and_stops(container: tuple[str, int]) -> None:
    name, port = container
    deadline = time.monotonic() + HEALTHY_SECONDS
    while (state := _run_docker("inspect", "--format", "{{.State.Health.Status}}", name)) != "healthy":
        assert time.monotonic() < deadline, (state, _run_docker("logs", name))
        time.sleep(1)
    assert _run_docker("exec", name, "id", "--user") != "0"
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    assert requests.post(url, json=body, timeout=60).status_code == 401
    made = _run_docker("exec", name, "mistral-api", "keys", "create", "laptop")
    keys = [_run_docker("exec", name, "cat", "/data/first-api-key"), re.search(r"mla_\S+", made)[0]]  # type: ignore[index]
    for key in keys:
        answer = requests.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        assert (answer.status_code, "content" in answer.text) == (200, True)
    _run_docker("stop", f"--time={STOP_SECONDS}", name, seconds=STOP_SECONDS + COMMAND_SECONDS)
    assert _run_docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
