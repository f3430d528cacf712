"""``mistral-api chat`` in a terminal of its own: on the real server, and on one that says what no model would."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.terminal.line_input import HISTORY_LINES
from tests.support.processes import Server, clean_environment, wait_for
from tests.support.scripted_api import ScriptedApi, scripted_api

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
if sys.platform != "win32":
    from tests.support.terminals import CTRL_C, CTRL_D, UP, Terminal, terminal

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
PROMPT = ">>> "


@contextlib.contextmanager
def _chat(url: str, home: Path, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """Run the command in a terminal, with a home of its own, up to its first prompt."""
    settings = {"MISTRAL_API_URL": url, "HOME": str(home), "TERM": "xterm", "NO_COLOR": "", "XDG_STATE_HOME": ""}
    with terminal([PROGRAM, "chat", *arguments], clean_environment(**settings | environment)) as running:
        running.expect(PROMPT)
        yield running


def _texts(server: Server, session_id: str) -> list[str]:
    return [message["content"] for message in server.stored_messages(session_id)]


def test_dialogue_is_recorded_taken_back_and_gone_on_with(server: Server, session_id: str, tmp_path: Path) -> None:
    options = ("--session", session_id, "--max-tokens", "12", "--temperature", "0")
    with _chat(server.url, tmp_path, *options, "--system", "Be brief.") as screen:
        assert f"There is no conversation '{session_id}' yet; it begins here." in screen.shown
        screen.type("What is the capital of France?")
        first = screen.expect(PROMPT)
        screen.type("And of Spain?")
        screen.expect(PROMPT)
        assert len(_texts(server, session_id)) == 5
        screen.type("/undo")
        screen.expect("Taken back: And of Spain?")
        screen.expect(PROMPT)
        assert _texts(server, session_id)[:2] == ["Be brief.", "What is the capital of France?"]
        assert _texts(server, session_id)[2] in first.replace("\r\n", "\n")
        screen.type("/retry")
        screen.expect(PROMPT + "What is the capital of France?")
        screen.expect(PROMPT)
        screen.press(CTRL_D)
        assert screen.end() == 0
        assert f"goes on with: .venv/bin/mistral-api chat --session {session_id}" in screen.shown
    before = _texts(server, session_id)
    assert before[:2] == ["Be brief.", "What is the capital of France?"]
    assert len(before) == 3
    with _chat(server.url, tmp_path, *options) as screen:
        assert "What is the capital of France?" in screen.shown
        screen.press(UP + UP + UP)
        screen.type("")
        screen.expect("And of Spain?")
        screen.expect(PROMPT)
        screen.type("/bye")
        assert screen.end() == 0
    assert _texts(server, session_id)[:4] == [*before, "And of Spain?"]


def test_ctrl_c_stops_the_answer_and_the_model_server_and_keeps_the_conversation(
    server: Server, session_id: str, tmp_path: Path, idle_slots: None
) -> None:
    def stop_in_the_middle_of(question: str) -> None:
        screen.type(question)
        screen.expect(f"{question}\r\n")
        for _ in range(5):
            screen.expect(" ")
        wait_for(lambda: server.slots_busy() == 1, "an answer")
        screen.press(CTRL_C)
        screen.expect("(stopped)")
        screen.expect(PROMPT)

    # What stands before a question that is stopped is the same in each run: so its answer is, which is long.
    options = ("--session", session_id, "--temperature", "0", "--max-tokens", "400")
    with _chat(server.url, tmp_path, *options) as screen:
        stop_in_the_middle_of("Write a very long story about a dragon.")
        wait_for(lambda: server.slots_busy() == 0, "the end of the answer", seconds=5)
        screen.type("/undo")
        screen.expect("Taken back: Write a very long story")
        screen.expect(PROMPT)
        screen.type("Name a colour.")
        screen.expect("Name a colour.\r\n")
        screen.expect(PROMPT)
        stop_in_the_middle_of("Write a very long poem about a dragon.")
        screen.type("Write a very long play about a dragon.")
        screen.expect("play about a dragon.\r\n")
        screen.expect(PROMPT, seconds=120)
        screen.press("half a question")
        screen.expect("half a question")
        screen.interrupt_prompt("(Ctrl-D or /bye ends)")
        screen.expect(PROMPT)
        screen.press(CTRL_D)
        assert screen.end() == 0
        assert "Traceback" not in screen.shown
    wait_for(lambda: len(server.stored_messages(session_id)) == 6, "the record of the last answer")
    messages = server.stored_messages(session_id)
    assert [(message["role"], message["status"]) for message in messages] == [
        ("user", "complete"),
        ("assistant", "complete"),
        ("user", "complete"),
        ("assistant", "interrupted"),
        ("user", "complete"),
        ("assistant", "complete"),
    ]
    assert messages[2]["content"].startswith("Write a very long poem")


def test_pipe_and_arguments_ask_one_question(server: Server, tmp_path: Path) -> None:
    environment = clean_environment(API_PORT=str(server.api_port), DATA_DIR=str(tmp_path))
    asked = f'echo "Say hi" | {PROGRAM} chat --temperature 0 --max-tokens 4'
    done = subprocess.run(["/bin/sh", "-c", asked], env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "(the limit of tokens is reached)\n")
    listed = subprocess.run([PROGRAM, "chat", "--list"], env=environment, capture_output=True, timeout=60, check=True)
    count, session_id, *title = listed.stdout.decode().splitlines()[0].split()[2:]
    assert (count, title) == ("2", ["Say", "hi"])
    assert _texts(server, session_id) == ["Say hi", done.stdout.decode().removesuffix("\n")]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A server that answers as the test says."""
    with scripted_api() as running:
        yield running


def test_terminal_shows_thoughts_dimmed_and_obeys_no_model(api: ScriptedApi, tmp_path: Path) -> None:
    with _chat(api.url, tmp_path) as screen:
        api.say(
            {"reasoning_content": "Hm"}, {"reasoning_content": "…"}, {"content": "Wörter 🙂"}, {"content": "\x1b[2J"}
        )
        screen.type("Hi")
        assert screen.expect(PROMPT).endswith("\x1b[2mHm\x1b[0m\x1b[2m…\x1b[0m\r\n\r\nWörter 🙂␛[2J\r\n")
        api.refuse(500, "Out of\x1b[A order.")
        screen.type("Hi")
        screen.expect("\nOut of␛[A order.\r\n")
        screen.expect(PROMPT)
        assert "\x1b[2J" not in screen.shown
    with _chat(api.url, tmp_path, NO_COLOR="1") as screen:
        api.say({"reasoning_content": "Hm"}, {"content": "So."})
        screen.type("Hi")
        assert screen.expect(PROMPT).endswith("[thinking]\r\nHm\r\n[answer]\r\nSo.\r\n")
        assert "\x1b[2m" not in screen.shown


def test_typed_lines_are_remembered_for_their_user_alone(api: ScriptedApi, tmp_path: Path) -> None:
    path = tmp_path / ".local" / "state" / "mistral-api" / "chat-history"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(f"line {number}" for number in range(HISTORY_LINES)) + "\n")
    os.chmod(path, 0o644)
    with _chat(api.url, tmp_path) as screen:
        screen.type('"""a message')
        screen.expect("... ")
        api.say({"content": "heard"})
        screen.type('of two lines"""')
        screen.expect("heard")
        screen.expect(PROMPT)
        screen.press("/st\t")
        screen.expect("/stats")
        screen.type("")
        screen.expect("Statistics on.")
        screen.expect(PROMPT)
        screen.type("/bye")
        assert screen.end() == 0
    assert api.chats[0]["messages"][0]["content"] == "a message\nof two lines"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = path.read_text().splitlines()
    assert (len(lines), lines[0], lines[-2:]) == (HISTORY_LINES, "line 4", ["/stats", "/bye"])
