"""opencode, qwen-code, Continue's ``cn`` and aider, unmodified, configured as docs/clients.md says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from mistral_api.payload_types.completions import Delta
from tests.support.client_programs import Ended, client_environment, run_client
from tests.support.documented_snippets import exported, snippet
from tests.support.npm_packages import npm_package
from tests.support.processes import Server, wait_for
from tests.support.pypi_programs import pypi_program
from tests.support.scripted_engine import MODEL, ScriptedEngine, call_tool, say, tool_results

pytestmark = pytest.mark.clients

SECONDS = 40.0
Agent = Callable[..., Ended]


def opencode(server: Server, folder: Path, question: str, model: str = MODEL, **more: Any) -> Ended:
    """Run opencode; ``more`` are settings beside those of the document."""
    settings = json.loads(snippet("opencode", "json", server.url, model)) | {"autoupdate": False} | more
    (folder / "opencode.json").write_text(json.dumps(settings), encoding="utf-8")
    quiet = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    command = [str(npm_package("opencode-ai")), "run", question]
    return run_client(command, folder, client_environment(folder, **quiet), seconds=SECONDS)


def qwen_code(server: Server, folder: Path, question: str, model: str = MODEL) -> Ended:
    """Run qwen-code, which may run all commands."""
    settings = {"privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}}
    (folder / ".qwen").mkdir()
    (folder / ".qwen" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [str(npm_package("@qwen-code/qwen-code")), "--auth-type", "openai", "--yolo", "-p", question]
    environment = client_environment(folder, **exported("qwen-code", server.url, model))
    return run_client(command, folder, environment, seconds=SECONDS)


def continue_cli(server: Server, folder: Path, question: str, model: str = MODEL) -> Ended:
    """Run Continue's cn, which may run all commands."""
    config = folder / "config.yaml"
    config.write_text(snippet("Continue", "yaml", server.url, model), encoding="utf-8")
    command = [str(npm_package("@continuedev/cli")), "-p", question, "--config", str(config), "--auto"]
    environment = client_environment(folder, CONTINUE_TELEMETRY_ENABLED="0")
    return run_client(command, folder, environment, seconds=SECONDS)


@pytest.mark.parametrize(
    ("agent", "tool"),
    [(opencode, "bash"), (qwen_code, "run_shell_command"), (continue_cli, "Bash")],
    ids=["opencode", "qwen-code", "continue"],
)
def test_agent_runs_a_command_that_the_model_asks_for(
    agent: Agent, tool: str, scripted: tuple[Server, ScriptedEngine], tmp_path: Path
) -> None:
    server, engine = scripted
    word = uuid4().hex
    printed = word.translate(str.maketrans("abcdef", "ABCDEF"))
    command = {"command": f"echo {word} | tr a-f A-F", "description": "Print a word", "is_background": False}

    def script(body: dict[str, Any]) -> list[Delta]:
        if tool not in [each["function"]["name"] for each in body.get("tools", [])]:
            return say("A title")
        results = tool_results(body)
        return say(f"The end. {results[-1]}") if results else call_tool(tool, command)

    engine.script = script
    ended = agent(server, tmp_path, "Run the command.")
    assert ended.code == 0, ended
    assert "The end." in ended.output, ended
    assert printed in ended.output, ended
    stored = wait_for(lambda: _stored(server, printed), "the conversation")
    # One conversation, in which the program's request for a title is none of the messages.
    assert [message["role"] for message in stored if message["role"] != "system"][-4:] == [
        *("user", "assistant", "tool", "assistant"),
    ]


def _stored(server: Server, word: str) -> list[dict[str, Any]] | None:
    """Return the messages of the only conversation with a word, None as long as it has not ended."""
    listed = requests.get(f"{server.url}/v1/conversations", params={"q": word}, timeout=10).json()["data"]
    if not listed:
        return None
    (conversation,) = listed
    messages = server.stored_messages(conversation["session_id"])
    return messages if messages[-1]["role"] == "assistant" else None


def test_opencode_is_answered_by_the_bundled_engine(server: Server, tmp_path: Path) -> None:
    model = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    settings = json.loads(snippet("opencode", "json", server.url, model))
    settings["provider"]["local"]["models"][model]["limit"] = {"context": 2048, "output": 40}
    # The demo model has no room for the usual 8,000 tokens of instructions and tools.
    small = {"prompt": "Answer in one sentence.", "tools": {"*": False}}
    word = uuid4().hex
    ended = opencode(
        server, tmp_path, f"What is the capital of France? Ignore {word}.", model,
        provider=settings["provider"], agent={"build": small, "title": {"disable": True}}, tools={"*": False},
    )  # fmt: skip
    assert ended.code == 0, ended
    stored = wait_for(lambda: _stored(server, word), "the conversation")
    assert stored[-1]["content"].strip() in ended.output, ended


def test_aider_is_answered(scripted: tuple[Server, ScriptedEngine], tmp_path: Path) -> None:
    server, engine = scripted
    engine.script = lambda _body: say("Nothing is to be changed.")
    quiet = ["--no-check-update", "--analytics-disable", "--no-git", "--no-pretty", "--no-show-model-warnings"]
    command = [*pypi_program("aider-chat", "aider"), "--model", f"openai/{MODEL}", "--yes-always", *quiet]
    environment = client_environment(tmp_path, **exported("aider", server.url, MODEL))
    ended = run_client([*command, "--message", "Hello."], tmp_path, environment, seconds=SECONDS)
    assert ended.code == 0, ended
    assert "Nothing is to be changed." in ended.output, ended
