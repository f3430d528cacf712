"""Codex from npm, unmodified, against the running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from mistral_api.payload_types.completions import Delta
from tests.support.client_programs import Ended, client_environment, run_client
from tests.support.documented_snippets import snippet
from tests.support.npm_packages import npm_package
from tests.support.processes import Server, wait_for
from tests.support.scripted_engine import MODEL, ScriptedEngine, call_tool, say, tool_results

pytestmark = pytest.mark.clients

SECONDS = 90.0
# It must not look for newer versions, nor tell anybody how it is used.
QUIET = """
check_for_update_on_startup = false
[analytics]
enabled = false
[otel]
exporter = "none"
metrics_exporter = "none"
"""


def run_codex(server: Server, home: Path, *arguments: str, model: str = MODEL) -> Ended:
    """Run ``codex exec`` with a home of its own, in a folder below it."""
    settings, folder = home / "codex", home / "project"
    settings.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    top, tables = snippet("Codex", "toml", server.url, model).split("\n\n", 1)
    (settings / "config.toml").write_text(f"{top}\n{QUIET}\n{tables}", encoding="utf-8")
    command = [str(npm_package("@openai/codex")), "exec", *arguments]
    environment = client_environment(home, CODEX_HOME=str(settings))
    ended = run_client(command, folder, environment, seconds=SECONDS)
    assert ended.code == 0, ended
    return ended


# What makes its first prompt short enough for a small model on a CPU: 1,000 tokens instead of 9,000.
BRIEF = (
    *("-c", "include_environment_context=false", "-c", "include_permissions_instructions=false"),
    *("-c", "skills.include_instructions=false"),
    *("--disable", "multi_agent", "--disable", "goals", "--disable", "skill_search", "--disable", "view_image"),
)


def test_codex_is_answered_by_the_bundled_engine(server: Server, tmp_path: Path) -> None:
    model = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    instructions, schema = tmp_path / "instructions.md", tmp_path / "schema.json"
    instructions.write_text("Be brief.", encoding="utf-8")
    # An answer that comes to its end: Codex demands complete ones.
    form = {"type": "object", "properties": {"greeting": {"enum": ["hello"]}}, "required": ["greeting"]}
    schema.write_text(json.dumps(form | {"additionalProperties": False}), encoding="utf-8")
    options = ["-c", f"model_instructions_file={instructions}", "--output-schema", str(schema), *BRIEF]
    ended = run_codex(server, tmp_path, "--skip-git-repo-check", *options, "Say hello.", model=model)
    assert json.loads(ended.output) == {"greeting": "hello"}


def conversation_with(server: Server, word: str) -> list[dict[str, Any]]:
    """Return the messages of the conversation with a word in it."""
    listed = requests.get(f"{server.url}/v1/conversations", params={"q": word}, timeout=10).json()["data"]
    return server.stored_messages(listed[0]["session_id"]) if listed else []


def test_codex_runs_a_command_that_the_model_asks_for(scripted: tuple[Server, ScriptedEngine], tmp_path: Path) -> None:
    server, engine = scripted
    word = uuid4().hex

    def script(body: dict[str, Any]) -> list[Delta]:
        results = tool_results(body)
        if not results:
            return call_tool("exec_command", {"cmd": f"echo {word} | tr a-f A-F"})
        return say("It has run.")

    engine.script = script
    sandbox = "--dangerously-bypass-approvals-and-sandbox"
    ended = run_codex(server, tmp_path, "--skip-git-repo-check", sandbox, "Run the command.")
    assert ended.output.strip() == "It has run."
    printed = word.translate(str.maketrans("abcdef", "ABCDEF"))
    (result,) = tool_results(engine.bodies[-1])
    assert printed in result
    messages = wait_for(lambda: conversation_with(server, printed), "the conversation")
    said = [message for message in messages if message["role"] not in ("system", "developer")]
    assert [message["role"] for message in said][-3:] == ["assistant", "tool", "assistant"]
    assert printed in str(said[-2]["content"])
