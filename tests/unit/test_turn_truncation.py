"""Omit the oldest turns that do not fit the context."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from mistral_api.generation.prompt import room_for_prompt, truncate_turns, turns_of
from mistral_api.payload_types.chat import ChatMessage, ChatPayload

Messages = list[ChatMessage]
SYSTEM: ChatMessage = {"role": "system", "content": "12345"}


def _turn(size: int, *more: str) -> Messages:
    """Return a user message of ``size`` tokens, followed by messages of one token in these roles."""
    others: Messages = [{"role": role, "content": "y"} for role in more]
    return [{"role": "user", "content": "x" * size}, *others]


def _tokens(messages: Messages) -> int:
    return sum(len(str(message["content"])) for message in messages)


def _truncate(leading: Messages, others: Messages, room: int) -> tuple[Messages, int]:
    asked = 0

    def count(messages: Messages) -> int:
        nonlocal asked
        asked += 1
        return _tokens(messages)

    return truncate_turns(leading, others, room=room, count=count, bound=lambda _: None), asked


def test_chat_within_the_upper_bound_is_not_counted() -> None:
    chat = [SYSTEM, *_turn(3, "assistant"), *_turn(3)]
    assert (
        truncate_turns(chat[:1], chat[1:], room=20, count=lambda _: pytest.fail("counted"), bound=lambda _: 20) == chat
    )
    only = _turn(99, "assistant", "tool")
    assert truncate_turns([], only, room=1, count=lambda _: pytest.fail("counted"), bound=lambda _: None) == only


@pytest.mark.parametrize(("room", "turns"), [(35, 3), (34, 2), (25, 2), (24, 1), (15, 1), (1, 1)])
def test_whole_turns_are_omitted_to_the_exact_token(room: int, turns: int) -> None:
    others = [*_turn(7, "assistant", "tool", "assistant"), *_turn(9, "assistant"), *_turn(10)]
    expected = {3: others, 2: others[4:], 1: others[6:]}[turns]
    assert _truncate([SYSTEM], others, room)[0] == [SYSTEM, *expected]


def test_truncation_search_is_exact_with_few_counts() -> None:
    chance = random.Random(5)
    for _ in range(300):
        others = [
            message for _ in range(chance.randint(2, 60)) for message in _turn(chance.randint(1, 4000), "assistant")
        ]
        room = chance.randint(1, _tokens(others))
        fitted, asked = _truncate([SYSTEM], others, room)
        tails = [list(chain.from_iterable(turns_of(others)[dropped:])) for dropped in range(len(turns_of(others)))]
        longest = next((tail for tail in tails if _tokens([SYSTEM, *tail]) <= room), tails[-1])
        assert fitted == [SYSTEM, *longest]
        assert asked <= 11


def test_truncation_search_of_uneven_turns_takes_few_counts() -> None:
    others = [message for size in [1] * 300 + [5000] + [1] * 20 for message in _turn(size)]
    fitted, asked = _truncate([], others, 5100)
    assert _tokens(fitted) == 5100
    assert asked <= 15


def test_turn_ends_before_the_next_user_message() -> None:
    chat: Messages = [
        {"role": "assistant", "content": "y"},
        *_turn(1, "assistant", "tool", "tool", "assistant"),
        *_turn(2),
    ]
    assert [len(turn) for turn in turns_of(chat)] == [1, 5, 1]


@pytest.mark.parametrize(
    ("context", "options", "room"),
    [
        (2048, {"max_tokens": 100}, 1948),
        (2048, {"max_completion_tokens": 48}, 2000),
        (2048, {}, 1536),
        (32768, {}, 31744),
        (2048, {"max_tokens": 4096}, 1024),
        (2048, {"max_tokens": -1}, 1536),
    ],
)
def test_room_for_the_prompt_leaves_space_for_the_answer(context: int, options: ChatPayload, room: int) -> None:
    assert room_for_prompt(context, options) == room
