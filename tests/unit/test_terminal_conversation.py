"""A conversation in the terminal goes on where a server cannot remember, and takes back what it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mistral_api.terminal.chat import Chat
from mistral_api.terminal.conversation import Answer, Conversation, GenerationOptions
from mistral_api.terminal.screen import Screen
from mistral_api.terminal.server import AnswerCut, ChatError, Refused, Server, ServerAddress
from tests.support.scripted_api import CUT, WAIT, Refusal, ScriptedApi, scripted_api


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A server that answers as the test says, and keeps nothing."""
    with scripted_api() as running:
        yield running


class _Listener:
    """Hears an answer, and may do something at its first word or while it waits."""

    def __init__(self, at_content: Callable[[], None] | None = None, at_wait: Callable[[], None] | None = None) -> None:
        self.heard = ""
        self._at_content, self._at_wait = at_content, at_wait

    def waiting(self, seconds: float) -> None:
        if self._at_wait is not None:
            self._at_wait()

    def reasoning(self, text: str) -> None:
        self.heard += f"<{text}>"

    def content(self, text: str) -> None:
        self.heard += text
        if self._at_content is not None:
            self._at_content()


def _conversation(api: ScriptedApi, session_id: str | None = None, **options: Any) -> Conversation:
    server = Server(ServerAddress.parse(api.url, is_own=False), None, "serve")
    return Conversation(server, GenerationOptions(**options), session_id)


def _sent(api: ScriptedApi) -> list[str]:
    return [message["content"] for message in api.chats[-1]["messages"]]


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("status", "code", "param"),
    [(400, "not_supported", "use_history"), (503, "database_unavailable", None)],
)
def test_everything_said_here_is_sent_where_the_server_cannot_remember(
    api: ScriptedApi, status: int, code: str, param: str | None
) -> None:
    conversation = _conversation(api, system="Be brief.")
    api.say({"content": "one"})
    conversation.ask("1?", _Listener())
    api.refuse(status, "Not now.", code=code, param=param)
    api.say({"content": "two"})
    listener = _Listener()
    assert conversation.ask("2?", listener).content == listener.heard == "two"
    assert _sent(api) == ["Be brief.", "1?", "one", "2?"]
    assert [chat["use_history"] for chat in api.chats] == [True, True, False]
    api.say({"content": "three"})
    conversation.ask("3?", _Listener())
    assert _sent(api) == ["Be brief.", "1?", "one", "2?", "two", "3?"]
    assert len({chat["session_id"] for chat in api.chats}) == 1


def test_conversation_that_began_elsewhere_is_not_continued_without_its_history(api: ScriptedApi) -> None:
    conversation = _conversation(api, "older")
    api.refuse(503, "The database does not answer.", code="database_unavailable")
    with pytest.raises(Refused, match=r"The database does not answer\."):
        conversation.ask("And?", _Listener())
    assert conversation.turns == []


def test_server_that_cannot_count_tokens_is_asked_without_truncation(api: ScriptedApi) -> None:
    api.refuse(400, "No.", code="not_supported", param="truncation")
    api.say({"content": "one"})
    assert _conversation(api).ask("1?", _Listener()).content == "one"
    assert "truncation" not in api.chats[-1]


def test_server_of_another_kind_gets_the_history_from_here(api: ScriptedApi) -> None:
    api.keeps_sessions = False
    conversation = _conversation(api)
    for question in ("1?", "2?"):
        api.say({"content": f"to {question}"})
        conversation.ask(question, _Listener())
    assert _sent(api) == ["1?", "to 1?", "2?"]


def test_failed_question_is_forgotten_and_the_conversation_goes_on(api: ScriptedApi) -> None:
    conversation = _conversation(api)
    api.say({"content": "half"}, CUT)
    with pytest.raises(AnswerCut):
        conversation.ask("1?", _Listener())
    api.say({"content": "two"})
    assert conversation.ask("2?", _Listener()).content == "two"
    assert [turn.question for turn in conversation.turns] == ["2?"]


@pytest.mark.parametrize("moment", ["content", "wait"])
def test_stopped_answer_is_kept_and_the_server_is_told(api: ScriptedApi, moment: str) -> None:
    conversation = _conversation(api)
    api.say(*([{"content": "on and on"}] if moment == "content" else []), WAIT)
    answer = conversation.ask("1?", _Listener(**{f"at_{moment}": _interrupt}))
    assert (answer.stopped, answer.content) == (True, "on and on" if moment == "content" else "")
    assert api.client_left.wait(5)
    assert [turn.question for turn in conversation.turns] == ["1?"]


def test_no_thread_is_left_by_an_answer_that_nobody_wants(api: ScriptedApi) -> None:
    def fail() -> None:
        raise BrokenPipeError

    before = set(threading.enumerate())
    api.say({"content": "a"}, WAIT)
    with pytest.raises(BrokenPipeError):
        _conversation(api).ask("1?", _Listener(at_content=fail))
    assert api.client_left.wait(5)
    assert "answer-reader" not in [thread.name for thread in set(threading.enumerate()) - before]


def test_last_turn_is_left_out_where_the_server_has_nothing_to_delete(api: ScriptedApi) -> None:
    conversation = _conversation(api)
    for question in ("1?", "2?"):
        api.say({"content": f"to {question}"})
        conversation.ask(question, _Listener())
    first = conversation.session_id
    assert conversation.take_back() == "2?"
    api.say({"content": "three"})
    conversation.ask("3?", _Listener())
    assert (_sent(api), conversation.session_id) == (["1?", "to 1?", "3?"], first)
    assert [conversation.take_back() for _ in range(2)] == ["3?", "1?"]
    assert conversation.session_id != first
    with pytest.raises(ChatError):
        conversation.take_back()


def test_conversation_that_this_key_may_not_read_is_opened_and_another_error_opens_none(
    api: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(ServerAddress.parse(api.url, is_own=False), None, "serve")
    chat = Chat(server, GenerationOptions(), Screen(), shows_statistics=False)
    api.reading = Refusal(403, "This needs the scope 'history'.", "insufficient_scope")
    chat.open("one")
    assert chat.conversation.session_id == "one"
    assert capsys.readouterr().err == "This needs the scope 'history'. The conversation is open all the same.\n"
    api.reading = Refusal(503, "The database does not answer.", "database_unavailable")
    with pytest.raises(Refused):
        chat.open("two")
    assert chat.conversation.session_id == "one"


def test_speed_is_the_model_servers_or_what_the_times_say() -> None:
    answer = Answer(usage={"completion_tokens": 11}, first_seconds=1.0, seconds=3.0, began=time.monotonic())
    assert answer.tokens_per_second == 5.0
    answer.timings = {"predicted_per_second": 7.0}
    assert answer.tokens_per_second == 7.0
    assert Answer(usage={"completion_tokens": 1}, first_seconds=1.0, seconds=3.0).tokens_per_second is None
