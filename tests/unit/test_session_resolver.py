"""Which conversation a request belongs to: the first of what names or shows it decides."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.conversations.recognition import RecognitionIndex
from mistral_api.conversations.session_resolver import Sender, SessionResolver
from mistral_api.system.identifiers import GENERATED_SESSION_PREFIX, new_id
from tests.support.dialogues import said, take_turn
from tests.support.exchanges import make_exchange, reply

HISTORY = said("Hi", "Hello!", "And?")


@pytest.fixture
def index() -> RecognitionIndex:
    made = RecognitionIndex()
    made.note(make_exchange("recognised", messages=said("Hi"), answers=reply("Hello!")))
    return made


def sender(body: Any = None, **headers: str) -> Sender:
    return Sender("local", {name.replace("_", "-"): value for name, value in headers.items()}, body or {})


def test_the_order(index: RecognitionIndex) -> None:
    resolver = SessionResolver(index, ())
    named = sender(X_Session_Id="in-a-header")
    assert resolver.resolve(named, "in-the-body", HISTORY).session_id == "in-the-body"
    assert resolver.resolve(named, None, HISTORY).session_id == "in-a-header"
    assert resolver.resolve(sender(), None, HISTORY).session_id == "recognised"
    new = resolver.resolve(sender(), None, said("Good morning"))
    assert new.session_id.startswith(GENERATED_SESSION_PREFIX)
    assert (new.is_new, new.resends_history) == (True, False)


def test_what_is_known_of_the_history(index: RecognitionIndex) -> None:
    resolver = SessionResolver(index, ("X-My-Chat",))
    recognised = resolver.resolve(sender(), None, HISTORY)
    assert (recognised.is_new, recognised.resends_history) == (False, True)
    own_header = resolver.resolve(sender(X_My_Chat="mine"), None, HISTORY)
    assert (own_header.session_id, own_header.resends_history) == ("mine", False)
    open_webui = resolver.resolve(sender(X_OpenWebUI_Chat_Id="chat"), None, HISTORY)
    assert (open_webui.session_id, open_webui.client, open_webui.resends_history) == ("chat", "open-webui", True)


@pytest.mark.parametrize(
    ("agent", "client"),
    [
        ("OpenAI/Python 3.57.0", "openai"),
        ("python-requests/2.32.5", "python-requests"),
        ("claude-cli/2.1.197 (external, cli)", "claude-code"),
        ("", None),
    ],
)
def test_the_client_is_named_after_its_user_agent(agent: str, client: str | None) -> None:
    assert sender(User_Agent=agent).client == client


def test_of_twins_the_one_of_the_same_client_is_continued() -> None:
    index = RecognitionIndex()
    ours = take_turn(index, said("Hi"), "Hello!", client="openai")
    take_turn(index, said("Hi"), "Hello!", client="python-requests")
    resolved = SessionResolver(index, ()).resolve(sender(User_Agent="OpenAI/Python 3.57.0"), None, HISTORY)
    assert resolved.session_id == ours


def test_a_side_request_does_not_take_a_conversation_from_its_twin() -> None:
    index = RecognitionIndex()
    index.note(make_exchange("older", messages=said("Hi"), answers=reply("Hello!")))
    index.note(make_exchange("newer", messages=said("Hi"), answers=reply("Hello!")))
    resolver = SessionResolver(index, ())
    prompt = "Generate a concise 3-7 word title for this conversation, omitting punctuation."
    title = resolver.resolve(sender(), None, said("Hi", "Hello!", prompt), new_id())
    assert (title.session_id, title.side_request) == ("newer", True)
    assert resolver.resolve(sender(), None, HISTORY, new_id()).session_id == "newer"
    assert resolver.resolve(sender(), None, HISTORY, new_id()).session_id == "older"


def test_counting_tokens_does_not_continue_a_conversation(index: RecognitionIndex) -> None:
    index.note(make_exchange("newer", messages=said("Hi"), answers=reply("Hello!")))
    resolver = SessionResolver(index, ())
    for _ in range(2):
        assert resolver.resolve(sender(), None, HISTORY).session_id == "newer"
