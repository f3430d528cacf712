"""Claude Code from npm, unmodified, against the running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from mistral_api.payload_types.completions import Delta
from tests.support.client_programs import Ended, client_environment, run_client
from tests.support.documented_snippets import exported
from tests.support.npm_packages import npm_package
from tests.support.processes import Server
from tests.support.scripted_engine import MODEL, ScriptedEngine, call_tool, say, tool_results

pytestmark = pytest.mark.clients

SECONDS = 40.0


def run_claude(server: Server, folder: Path, *arguments: str, model: str = MODEL, **variables: str) -> Ended:
    """Run ``claude -p`` in a folder, with that folder as its home."""
    command = npm_package("@anthropic-ai/claude-code")
    settings = exported("Claude Code", server.url, model) | {"DISABLE_AUTOUPDATER": "1"} | variables
    environment = client_environment(folder, **settings)
    return run_client([str(command), "-p", *arguments], folder, environment, seconds=SECONDS)


def said(ended: Ended) -> str:
    """Return what a run that went well has printed."""
    assert ended.code == 0, ended
    return ended.output.strip()


def conversations(server: Server, word: str) -> list[dict[str, Any]]:
    """Return the conversations with a word in them."""
    listed = requests.get(f"{server.url}/v1/conversations", params={"q": word}, timeout=10).json()
    found: list[dict[str, Any]] = listed["data"]
    return found


def test_claude_code_is_answered_by_the_bundled_engine(server: Server, tmp_path: Path) -> None:
    model = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    word = uuid4().hex
    # --bare reads no key but this one.
    limits = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "40", "ANTHROPIC_API_KEY": "any"}
    question = f"What is the capital of France? Ignore {word}."
    ended = run_claude(server, tmp_path, question, "--bare", model=model, **limits)
    (conversation,) = conversations(server, word)
    stored = server.stored_messages(conversation["session_id"])
    assert [message["role"] for message in stored[:3]] == ["system", "user", "assistant"]
    # It gives an answer up that was cut off three times, which a small model's may be.
    assert stored[-1]["content"].strip() in ended.output or "output token maximum" in ended.output, ended


def test_claude_code_runs_a_command_that_the_model_asks_for(
    scripted: tuple[Server, ScriptedEngine], tmp_path: Path
) -> None:
    server, engine = scripted
    word = uuid4().hex

    def script(body: dict[str, Any]) -> list[Delta]:
        results = tool_results(body)
        if not results:
            return call_tool("Bash", {"command": f"echo {word} | tr a-f A-F", "description": "Print a word"})
        return say(f"It printed {results[-1]}")

    engine.script = script
    ended = run_claude(server, tmp_path, "Run the command.", "--allowedTools", "Bash")
    assert said(ended) == f"It printed {word.translate(str.maketrans('abcdef', 'ABCDEF'))}"
    # What it asks for next goes on with the same conversation, and a compaction is none of its messages.
    engine.script = lambda _body: say("Very well.")
    assert said(run_claude(server, tmp_path, "--continue", "Thank you.")) == "Very well."
    said(run_claude(server, tmp_path, "--continue", "/compact"))
    (conversation,) = conversations(server, word)
    messages = server.stored_messages(conversation["session_id"])
    assert [message["role"] for message in messages if message["role"] != "system"] == [
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]


def test_claude_code_gets_the_tools_that_its_search_has_found(
    scripted: tuple[Server, ScriptedEngine], tmp_path: Path
) -> None:
    server, engine = scripted

    def script(body: dict[str, Any]) -> list[Delta]:
        if not tool_results(body):
            return call_tool("ToolSearch", {"query": "select:NotebookEdit"})
        return say("Found.")

    engine.script = script
    engine.bodies.clear()
    assert said(run_claude(server, tmp_path, "Search.", "--allowedTools", "ToolSearch")) == "Found."
    offered = [{tool["function"]["name"] for tool in body["tools"]} for body in engine.bodies]
    assert offered[1] - offered[0] == {"NotebookEdit"}
    assert tool_results(engine.bodies[1]) == ["The tool NotebookEdit is available now."]
