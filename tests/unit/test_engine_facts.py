"""What ``mistral-api engine show`` says of engines that are not the bundled one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mistral_api.cli import engine_facts
from mistral_api.control.placement import Placement
from mistral_api.control.status import write_status
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.system.processes import identity_of
from tests.support.http_stub import StubHandler, http_stub
from tests.support.model_server_status import make_status

LISTED = "Available devices:\n  CUDA0: NVIDIA GeForce RTX 3050 (8192 MiB, 7123 MiB free)\n"


class _LlamaServer(StubHandler):
    properties: object

    def get(self) -> None:
        """Answer with its properties."""
        self.send_whole(200, json.dumps(self.properties).encode(), {"Content-Type": "application/json"})


def _program(code: str) -> Engine:
    return Engine("llama-server", (sys.executable, "-c", code), "9300 (abcdef0)")


@pytest.mark.parametrize(
    ("properties", "version"),
    [({"build_info": "b9300-abcdef0"}, "b9300-abcdef0"), ({}, "unknown: it does not say"), ([], "unknown: it does")],
)
def test_engine_of_others_is_what_it_says_of_itself(properties: object, version: str) -> None:
    with http_stub(_LlamaServer, properties=properties) as url:
        facts = dict(engine_facts.engine_facts(Settings(model_server_url=url.replace("://", "://ann:secret@"))))
    assert facts["engine"] == "of MODEL_SERVER_URL, which somebody else runs"
    assert facts["version"].startswith(version)
    assert facts["origin"] == url


def test_engine_of_others_that_is_away_is_no_error() -> None:
    facts = dict(engine_facts.engine_facts(Settings(model_server_url="http://127.0.0.1:9")))
    assert facts["version"].startswith("unknown: The model server does not answer")


@pytest.mark.parametrize(
    ("code", "device"),
    [
        (f"print({LISTED!r})", "NVIDIA GeForce RTX 3050 (CUDA0, 8.00 GiB)"),
        ("print('Available devices:')", "the processor"),
        ("raise SystemExit('error: invalid argument: --list-devices')", "unknown: error: invalid argument: "),
        ("raise SystemExit('x' * 5000 + '\\x1b[31mred')", f"unknown: {'x' * 292}[31mred (exit code 1)"),
        ("raise SystemExit(139)", "unknown: it ended without a word (exit code 139)"),
    ],
)
def test_llama_server_is_asked_for_its_devices_and_for_what_computes_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, device: str
) -> None:
    monkeypatch.setattr(engine_facts, "choose_engine", lambda *_: _program(code))
    own = identity_of(os.getpid())
    placement = Placement(gpu_layers=0, main_memory_bytes=1 << 20, context_size=512, request_context_size=128)
    status = make_status(placement=placement, supervisor_pid=own.pid, supervisor_started=own.started)
    (tmp_path / "run").mkdir()
    write_status(tmp_path, status)
    facts = dict(engine_facts.engine_facts(Settings(data_dir=tmp_path)))
    assert facts["engine"] == "llama-server 9300 (abcdef0)"
    assert facts["origin"] == f"{sys.executable} (on PATH)"
    assert facts["device"].startswith(device)
    now = "the model server computes on the processor, 1.0 MiB in main memory; context 512, 128 a request"
    assert facts["now"] == now


def test_engine_that_does_not_run_is_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Engine:
        raise StartError("It does not run.")

    monkeypatch.setattr(engine_facts, "choose_engine", refuse)
    assert engine_facts.engine_facts(Settings(data_dir=tmp_path)) == [("engine", "none: It does not run.")]
