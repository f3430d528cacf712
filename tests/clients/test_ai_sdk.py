"""Vercel's AI SDK from npm, with the models of docs/clients.md, against the running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.payload_types.completions import Delta
from tests.support.client_programs import client_environment, run_client
from tests.support.documented_snippets import snippet
from tests.support.npm_packages import node_folder, npm_modules
from tests.support.processes import ROOT, Server
from tests.support.scripted_engine import MODEL, ScriptedEngine, call_tool, say, tool_results

pytestmark = [pytest.mark.clients, pytest.mark.parametrize("name", ["responses", "chat", "compatible", "anthropic"])]


def run_script(server: Server, folder: Path, model: str, name: str, action: str) -> dict[str, Any]:
    """Run an action of tests/support/ai_sdk.mjs with one of the models, and return what it prints."""
    (folder / "node_modules").symlink_to(npm_modules("ai"))
    models = snippet("Vercel's AI SDK", "js", server.url, model)
    (folder / "models.mjs").write_text(models.replace("const models", "export const models"), encoding="utf-8")
    script = folder / "ai_sdk.mjs"
    script.write_bytes((ROOT / "tests" / "support" / "ai_sdk.mjs").read_bytes())
    command = [str(node_folder() / "node"), str(script), name, action]
    ended = run_client(command, folder, client_environment(folder), seconds=40)
    assert ended.code == 0, ended
    printed: dict[str, Any] = json.loads(ended.output)
    return printed


def _model_id(server: Server) -> str:
    name: str = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    return name


def test_ai_sdk_streams_a_text(server: Server, tmp_path: Path, name: str) -> None:
    said = run_script(server, tmp_path, _model_id(server), name, "stream")
    assert "Paris" in "".join(said["pieces"])
    assert len(said["pieces"]) > 1
    assert said["finishReason"] in ("stop", "length")
    assert min(said["usage"]) > 0


def test_ai_sdk_gets_an_object_within_its_schema(server: Server, tmp_path: Path, name: str) -> None:
    made = run_script(server, tmp_path, _model_id(server), name, "object")["object"]
    assert made["city"] in ("Paris", "Rome")
    assert made["people"] in range(10)


def test_ai_sdk_calls_a_tool(scripted: tuple[Server, ScriptedEngine], tmp_path: Path, name: str) -> None:
    server, engine = scripted

    def script(body: dict[str, Any]) -> list[Delta]:
        results = tool_results(body)
        return say(f"Look: {results[-1]}") if results else call_tool("weather", {"city": "Oslo"})

    engine.script = script
    made = run_script(server, tmp_path, MODEL, name, "tools")
    assert made["calls"] == [{"city": "Oslo"}]
    assert made["steps"] == 2
    assert "It rains in Oslo." in made["text"]
