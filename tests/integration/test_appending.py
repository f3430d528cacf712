"""What a batch of exchanges does to the trees of their conversations."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, read_page
from mistral_api.delivery.writer import BatchInserter
from mistral_api.recording.exchange import Exchange
from tests.support.databases import rows_of
from tests.support.exchanges import an_exchange, answered, said

Messages = list[dict[str, Any]]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _read(engine: Engine, session_id: str = "one") -> list[tuple[str, Any, str]]:
    """The current branch."""
    with Session(engine) as session:
        page = read_page(session, find_conversation(session, "local", session_id), 500, None, None)
        return [(message.role, message.content, message.status) for message in page.messages]


def _texts(engine: Engine, session_id: str = "one") -> list[Any]:
    return [content for _, content, _ in _read(engine, session_id)]


def _deliver(engine: Engine, exchanges: list[Exchange], together: bool) -> None:
    delivery = BatchInserter(engine)
    for batch in [exchanges] if together else [[exchange] for exchange in exchanges]:
        delivery.insert(batch)


together = pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])


@together
def test_a_client_that_sends_the_history_adds_only_the_tail(engine: Engine, together: bool) -> None:
    history: Messages = [{"role": "system", "content": "Be brief."}]
    exchanges = []
    for turn in range(4):
        history = [*history, _user(f"question {turn}")]
        exchanges.append(an_exchange(messages=history, answers=answered(f"answer {turn}")))
        history = [*history, _assistant(f"answer {turn}")]
    _deliver(engine, exchanges, together)
    assert _texts(engine) == [message["content"] for message in history]
    assert rows_of(engine, "SELECT message_count FROM conversations") == [(9,)]


@together
def test_a_client_without_history_goes_on_where_the_conversation_ended(engine: Engine, together: bool) -> None:
    system = {"role": "system", "content": "Be brief."}
    exchanges = [an_exchange(messages=[system, _user(str(n))], answers=answered(f"a{n}")) for n in range(3)]
    _deliver(engine, exchanges, together)
    assert _texts(engine) == ["Be brief.", "0", "a0", "1", "a1", "2", "a2"]


@together
def test_an_edited_message_starts_a_branch_and_the_old_one_can_be_taken_up_again(
    engine: Engine, together: bool
) -> None:
    start = [_user("hi"), _assistant("hello")]
    old = [*start, _user("old"), _assistant("old answer")]
    exchanges = [
        an_exchange(messages=start[:1], answers=answered("hello")),
        an_exchange(messages=old[:3], answers=answered("old answer")),
        an_exchange(messages=[*start, _user("new")], answers=answered("new answer")),
    ]
    _deliver(engine, exchanges, together)
    assert _texts(engine) == ["hi", "hello", "new", "new answer"]
    _deliver(engine, [an_exchange(messages=[*old, _user("again")], answers=answered("yes"))], together)
    assert _texts(engine) == ["hi", "hello", "old", "old answer", "again", "yes"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(8,)]


@together
def test_an_answer_made_again_is_a_sibling_of_the_first(engine: Engine, together: bool) -> None:
    history = [_user("hi"), _assistant("hello"), _user("why?")]
    exchanges = [
        an_exchange(messages=history[:1], answers=answered("hello")),
        an_exchange(messages=history, answers=answered("because")),
        an_exchange(messages=history, answers=answered("who knows")),
    ]
    _deliver(engine, exchanges, together)
    assert _texts(engine) == ["hi", "hello", "why?", "who knows"]
    siblings = rows_of(engine, "SELECT count(*) FROM messages GROUP BY parent_id HAVING count(*) > 1")
    assert siblings == [(2,)]


@together
@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_was_never_answered_is_left_aside_by_the_next_turn(engine: Engine, together: bool, status: str) -> None:
    exchanges = [
        an_exchange(messages=said("one"), answers=answered("1")),
        an_exchange(messages=said("lost"), answer_status=status, status=500),
        an_exchange(messages=said("lost too"), answer_status=status, status=500),
        an_exchange(messages=said("two"), answers=answered("2")),
    ]
    _deliver(engine, exchanges[:3], together)
    assert _read(engine)[-1] == ("user", "lost too", status)
    _deliver(engine, exchanges[3:], together)
    assert _texts(engine) == ["one", "1", "two", "2"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(6,)]


@together
def test_a_request_that_failed_is_answered_when_it_is_sent_again(engine: Engine, together: bool) -> None:
    history = [_user("hi"), _assistant("hello"), _user("why?")]
    exchanges = [
        an_exchange(messages=history[:1], answers=answered("hello")),
        an_exchange(messages=history, answer_status="failed", status=502),
        an_exchange(messages=history, answers=answered("because")),
    ]
    _deliver(engine, exchanges, together)
    assert _read(engine)[-2:] == [("user", "why?", "complete"), ("assistant", "because", "complete")]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(4,)]


@together
def test_what_was_said_before_an_interruption_is_part_of_the_branch(engine: Engine, together: bool) -> None:
    exchanges = [
        an_exchange(messages=said("tell"), answers=answered("Once upon"), answer_status="interrupted"),
        an_exchange(messages=said("go on"), answers=answered("a time")),
    ]
    _deliver(engine, exchanges, together)
    assert _read(engine) == [
        ("user", "tell", "complete"),
        ("assistant", "Once upon", "interrupted"),
        ("user", "go on", "complete"),
        ("assistant", "a time", "complete"),
    ]


@together
def test_tool_calls_results_parts_and_reasoning_are_kept(engine: Engine, together: bool) -> None:
    parts = [{"type": "text", "text": "Add"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
    first = an_exchange(
        messages=[{"role": "user", "content": parts, "name": "Ann"}],
        answers=[{"content": None, "tool_calls": [CALL], "reasoning_content": "I need a tool."}],
    )
    second = an_exchange(messages=[*(first.messages or []), called, result], answers=answered("It is 3."))
    _deliver(engine, [first, second], together)
    stored = rows_of(engine, "SELECT role, content, tool_calls, extra FROM messages ORDER BY sequence")
    assert stored == [
        ("user", parts, None, {"name": "Ann"}),
        ("assistant", None, [CALL], {"reasoning_content": "I need a tool."}),
        ("tool", "3", None, {"tool_call_id": "call_1"}),
        ("assistant", "It is 3.", None, None),
    ]


def test_writers_at_the_same_time_neither_lose_nor_double_anything(engine: Engine) -> None:
    exchanges = [
        an_exchange(f"shared-{number % 3}", messages=said(f"question {number}"), answers=answered(f"answer {number}"))
        for number in range(60)
    ]
    # Every exchange is delivered by two writers, as when one of them has lost the acknowledgement of a commit.
    writers = [
        threading.Thread(target=_deliver, args=(engine, exchanges[first::4] + exchanges[(first + 1) % 4 :: 4], False))
        for first in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert rows_of(engine, "SELECT count(*), count(DISTINCT request_id) FROM api_usage") == [(60, 60)]
    texts = [text for number in range(3) for text in _texts(engine, f"shared-{number}")]
    assert sorted(texts) == sorted(f"{kind} {number}" for kind in ("question", "answer") for number in range(60))
    assert rows_of(engine, "SELECT sum(requests) FROM usage_rollups WHERE period = 'month'") == [(60,)]
    assert rows_of(engine, "SELECT sum(sessions) FROM usage_series WHERE period = 'hour' AND owner = ''") == [(3,)]
