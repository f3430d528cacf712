"""The title of a conversation is the beginning of the user's own first words."""

from __future__ import annotations

import time

import pytest

from mistral_api.conversations.turn_placement import conversation_title
from mistral_api.payload_types.chat import ChatMessage, ContentPart


def _user(*texts: str) -> ChatMessage:
    parts: list[ContentPart] = [{"type": "text", "text": text} for text in texts]
    return {"role": "user", "content": parts}


REMINDER = "<system-reminder>\nBe brief.\n</system-reminder>\n"


@pytest.mark.parametrize(
    ("messages", "title"),
    [
        ([{"role": "system", "content": "Help."}, {"role": "user", "content": " Hi\n there "}], "Hi there"),
        ([_user(REMINDER, "Fix the test.")], "Fix the test."),
        ([_user(REMINDER + "Fix the test.")], "Fix the test."),
        ([_user("<environment_context><cwd>/x</cwd></environment_context>"), _user("Why?")], "Why?"),
        (
            [_user("# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nTest it.\n</INSTRUCTIONS>"), _user("Why?")],
            "Why?",
        ),
        ([_user(REMINDER)], "<system-reminder> Be brief. </system-reminder>"),
        ([_user(REMINDER.strip(), REMINDER.strip(), "Fix the test.")], "Fix the test."),
        ([_user("What does <system-reminder> mean?")], "What does <system-reminder> mean?"),
        ([{"role": "user", "content": "x" * 200}], "x" * 80),
        ([{"role": "assistant", "content": "Hello"}], None),
    ],
)
def test_title_is_the_beginning_of_the_users_own_words(messages: list[ChatMessage], title: str | None) -> None:
    assert conversation_title(messages) == title


@pytest.mark.parametrize(
    "beginning", ["# AGENTS.md instructions", "# AGENTS.md instructions\n", "<system-reminder>", " "]
)
@pytest.mark.parametrize("filling", [" ", "\n", " \n", "\n# AGENTS.md instructions"])
def test_long_messages_take_time_in_proportion_to_their_length(beginning: str, filling: str) -> None:
    # Quadratic time would be minutes.
    messages = [_user(beginning + filling * (60_000 // len(filling)) + "!")] * 20
    began = time.thread_time()
    conversation_title(messages)
    assert time.thread_time() - began < 5


def test_only_the_beginning_of_a_message_is_read_for_a_title() -> None:
    assert conversation_title([_user(" " * 100_000 + "Hi")]) is None
