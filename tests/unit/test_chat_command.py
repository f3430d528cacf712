"""``mistral-api chat`` through pipes: what it prints, sends and ends with, whatever it is answered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mistral_api.cli import main
from tests.support.processes import clean_environment
from tests.support.scripted_api import CUT, Refusal, ScriptedApi, scripted_api


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A server that answers as the test says."""
    with scripted_api() as running:
        yield running


def _chat(api: ScriptedApi, *arguments: str, piped: str | bytes = "", **environment: str) -> Result:
    """Run the command in this process, without a terminal."""
    variables = clean_environment(**{"MISTRAL_API_URL": api.url} | environment)
    runner = CliRunner(env=dict.fromkeys(os.environ) | variables)
    return runner.invoke(main, ["chat", *arguments], input=piped)


def _outcome(done: Result) -> tuple[int, str, str]:
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_piped_question_gets_the_answer_alone(api: ScriptedApi) -> None:
    api.say({"role": "assistant"}, {"reasoning_content": "Hm."}, {"content": "Grüß"}, {"content": " Gott"})
    assert _outcome(_chat(api, piped="Hallo\n")) == (0, "Grüß Gott\n", "")
    (sent,) = api.chats
    assert sent["messages"] == [{"role": "user", "content": "Hallo"}]
    assert (sent["stream"], sent["use_history"], sent["truncation"]) == (True, True, "auto")
    assert {"model", "temperature", "max_tokens"}.isdisjoint(sent)


def test_options_reach_the_request_and_the_pipe_stands_before_the_question(api: ScriptedApi) -> None:
    api.say({"content": "Done.\n"})
    options = ("-s", "Be brief.", "-m", "big", "--temperature", "0.5", "--max-tokens", "9", "--session", "mine")
    assert _outcome(_chat(api, "Sum it up", *options, piped="A long text.\n")) == (0, "Done.\n", "")
    (sent,) = api.chats
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "A long text.\n\nSum it up"]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["session_id"]) == ("big", 0.5, 9, "mine")


def test_json_has_the_text_as_the_model_gave_it(api: ScriptedApi) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    end = {"model": "scripted", "choices": [], "usage": usage, "timings": {"predicted_per_second": 7.5}}
    api.say({"reasoning_content": "Hm"}, {"content": "\x1b[2J"}, b"data: " + json.dumps(end).encode() + b"\n\n")
    code, output, errors = _outcome(_chat(api, "Hi", "--json"))
    printed = json.loads(output)
    assert (code, errors, printed["content"], printed["reasoning"]) == (0, "", "\x1b[2J", "Hm")
    assert (printed["model"], printed["usage"], printed["tokens_per_second"]) == ("scripted", usage, 7.5)
    assert printed["session_id"] == api.chats[0]["session_id"]


def test_escape_sequences_of_a_model_are_harmless_in_a_pipe_too(api: ScriptedApi) -> None:
    api.say({"content": "\x1b"}, {"content": "]52;c;aGk=\x07\x9b2J"})
    assert _outcome(_chat(api, "Hi"))[:2] == (0, "␛]52;c;aGk=␇\\x9b2J\n")


def test_statistics_go_to_the_error_stream(api: ScriptedApi) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    api.say({"content": "x"}, b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    code, output, errors = _outcome(_chat(api, "Hi", "--stats"))
    assert (code, output) == (0, "x\n")
    assert errors.startswith("(3 tokens read (1 from the cache), 2 written, ")
    assert "first token after" in errors


def test_nobody_there_is_a_sentence_and_exit_code_2() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        runner = CliRunner(env=dict.fromkeys(os.environ) | clean_environment(API_PORT=str(port)))
        code, output, errors = _outcome(runner.invoke(main, ["chat", "Hi"]))
    assert (code, output) == (2, "")
    assert errors.startswith(f"Error: No server answers on http://127.0.0.1:{port}. Start it with ")


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (Refusal(400, "Too hot.", "invalid_value", "temperature"), 2, "Error: Too hot.\n"),
        (Refusal(401, "No API key.", "invalid_api_key"), 2, "Error: No API key. Put a key into MISTRAL_API_KEY; "),
        (Refusal(503, "The model is loading.", "model_loading"), 1, "Error: The model is loading.\n"),
        (Refusal(308, headers={"Location": "https://box/v1"}, body=b"Moved"), 1, "leads to https://box/v1.\n"),
        (Refusal(404, body=b"<html>Not here</html>"), 2, "is no answer of such a server (status 404).\n"),
        (Refusal(500, body=b'["no object"]'), 1, "is no answer of such a server (status 500).\n"),
        (Refusal(200, body=b"{}"), 1, "broke off in the middle of the answer.\n"),
    ],
)
def test_refusals_are_told_in_the_servers_words(api: ScriptedApi, refusal: Refusal, code: int, words: str) -> None:
    api.answers.append(refusal)
    done = _outcome(_chat(api, "Hi"))
    assert done[:2] == (code, "")
    assert words in done[2]
    assert done[2].count("\n") == 1


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"content": "half"}, CUT], "broke off in the middle of the answer.\n"),
        (
            [{"content": "half"}, b'data: {"error": {"message": "Compute error.", "code": null}}\n\n'],
            "Compute error.\n",
        ),
        ([{"content": "half"}, b": all is well\n\ndata: not JSON\n\n"], "in the middle of the answer is no JSON.\n"),
    ],
)
def test_answer_that_breaks_off_is_shown_so_far_with_a_sentence(api: ScriptedApi, steps: Any, words: str) -> None:
    api.say(*steps)
    code, output, errors = _outcome(_chat(api, "Hi"))
    assert (code, output) == (1, "half\n")
    assert errors.startswith("Error: ")
    assert errors.endswith(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "There is no question."),
        (["Hi", "--url", "http://b ox"], "is no address"),
        (["Hi", "--session", "a", "-c"], "exclude each other"),
        (["Hi", "--temperature", "3"], "--temperature"),
    ],
)
def test_wrong_calls_end_with_2_and_send_nothing(api: ScriptedApi, arguments: list[str], words: str) -> None:
    code, output, errors = _outcome(_chat(api, *arguments, piped=" \n"))
    assert (code, output, api.chats) == (2, "", [])
    assert words in errors


@pytest.mark.parametrize(
    ("piped", "question"),
    [
        ("Größe", "Größe"),
        ("\ufeffGröße", "Größe"),
        (b"Gr\xf6\xdfe", None),
    ],
)
def test_piped_bytes_of_any_encoding_are_a_question(api: ScriptedApi, piped: str | bytes, question: str | None) -> None:
    api.say({"content": "x"})
    assert _outcome(_chat(api, piped=piped))[0] == 0
    sent = api.chats[0]["messages"][0]["content"]
    assert sent == question if question else sent.startswith("Gr") and sent.endswith("e")


def test_more_than_a_request_may_have_is_refused_before_all_of_it_is_read(api: ScriptedApi) -> None:
    code, _, errors = _outcome(_chat(api, piped="x" * 2000, MAX_REQUEST_BYTES="1024"))
    assert (code, api.chats) == (2, [])
    assert "1024 bytes" in errors


def test_keys_go_only_to_the_server_that_they_are_for(api: ScriptedApi) -> None:
    port = api.url.rpartition(":")[2]
    own = {"MISTRAL_API_URL": "", "API_PORT": port, "ADMIN_API_KEY": "admins-key-of-this-server"}
    elsewhere = {"ADMIN_API_KEY": "admins-key-of-this-server", "OPENAI_API_KEY": "others"}
    for environment in (own, elsewhere, elsewhere | {"MISTRAL_API_KEY": "mine"}, own | {"MISTRAL_API_KEY": "mine"}):
        api.say({"content": "x"})
        assert _outcome(_chat(api, "Hi", **environment))[0] == 0
    sent = [headers.get("authorization") for headers in api.headers]
    assert sent == ["Bearer admins-key-of-this-server", None, "Bearer mine", "Bearer mine"]


def test_key_that_no_header_can_have_is_refused(api: ScriptedApi) -> None:
    code, _, errors = _outcome(_chat(api, "Hi", MISTRAL_API_KEY="a\nb: c"))
    assert (code, api.chats) == (2, [])
    assert errors.startswith("Error: MISTRAL_API_KEY: ")


def test_answer_is_printed_in_a_narrow_encoding(api: ScriptedApi) -> None:
    api.say({"content": "модели →"}, {"content": "\ud83d"}, {"content": "\ude00 ü"})
    environment = clean_environment(PYTHONIOENCODING="cp1252", PYTHONUTF8="0", MISTRAL_API_URL=api.url)
    done = subprocess.run(
        [sys.executable, "-c", "from mistral_api.cli import main; main()", "chat", "Hi"],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines() == [b"\\u043c\\u043e\\u0434\\u0435\\u043b\\u0438 \\u2192\\U0001f600 \xfc"]
