"""The effect of delivered exchanges on the message trees of their conversations."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine

from mistral_api.payload_types.chat import ChatMessage
from tests.support.conversations import assistant, deliver_batch, read_messages, together, user
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, question, reply

Messages = list[ChatMessage]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def _current_branch(engine: Engine, session_id: str = "one") -> list[tuple[str, Any, str]]:
    """Return the current branch."""
    return [(each.role, each.content, each.status) for each in read_messages(engine, session_id)]


def _texts(engine: Engine, session_id: str = "one") -> list[Any]:
    return [content for _, content, _ in _current_branch(engine, session_id)]


@together
def test_history_sent_again_appends_only_new_messages(engine: Engine, together: bool) -> None:
    history: Messages = [{"role": "system", "content": "Be brief."}]
    exchanges = []
    for turn in range(4):
        history = [*history, user(f"question {turn}")]
        exchanges.append(make_exchange(messages=history, answers=reply(f"answer {turn}")))
        history = [*history, assistant(f"answer {turn}")]
    deliver_batch(engine, exchanges, together)
    assert _texts(engine) == [message["content"] for message in history]
    assert rows_of(engine, "SELECT message_count FROM conversations") == [(9,)]


@together
def test_request_without_history_continues_at_the_end_of_the_conversation(engine: Engine, together: bool) -> None:
    system = {"role": "system", "content": "Be brief."}
    exchanges = [make_exchange(messages=[system, user(str(n))], answers=reply(f"a{n}")) for n in range(3)]
    deliver_batch(engine, exchanges, together)
    assert _texts(engine) == ["Be brief.", "0", "a0", "1", "a1", "2", "a2"]


@together
def test_edited_message_starts_a_branch_and_the_old_branch_can_be_continued(engine: Engine, together: bool) -> None:
    start = [user("hi"), assistant("hello")]
    old = [*start, user("old"), assistant("old answer")]
    exchanges = [
        make_exchange(messages=start[:1], answers=reply("hello")),
        make_exchange(messages=old[:3], answers=reply("old answer")),
        make_exchange(messages=[*start, user("new")], answers=reply("new answer")),
    ]
    deliver_batch(engine, exchanges, together)
    assert _texts(engine) == ["hi", "hello", "new", "new answer"]
    deliver_batch(engine, [make_exchange(messages=[*old, user("again")], answers=reply("yes"))], together)
    assert _texts(engine) == ["hi", "hello", "old", "old answer", "again", "yes"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(8,)]


@together
def test_regenerated_answer_is_a_sibling_of_the_first(engine: Engine, together: bool) -> None:
    history = [user("hi"), assistant("hello"), user("why?")]
    exchanges = [
        make_exchange(messages=history[:1], answers=reply("hello")),
        make_exchange(messages=history, answers=reply("because")),
        make_exchange(messages=history, answers=reply("who knows")),
    ]
    deliver_batch(engine, exchanges, together)
    assert _texts(engine) == ["hi", "hello", "why?", "who knows"]
    siblings = rows_of(engine, "SELECT count(*) FROM messages GROUP BY parent_id HAVING count(*) > 1")
    assert siblings == [(2,)]


@together
@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_next_turn_skips_messages_that_were_never_answered(engine: Engine, together: bool, status: str) -> None:
    exchanges = [
        make_exchange(messages=question("one"), answers=reply("1")),
        make_exchange(messages=question("lost"), answer_status=status, status=500),
        make_exchange(messages=question("lost too"), answer_status=status, status=500),
        make_exchange(messages=question("two"), answers=reply("2")),
    ]
    deliver_batch(engine, exchanges[:3], together)
    assert _current_branch(engine)[-1] == ("user", "lost too", status)
    deliver_batch(engine, exchanges[3:], together)
    assert _texts(engine) == ["one", "1", "two", "2"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(6,)]


@together
def test_failed_request_sent_again_is_answered_without_a_duplicate(engine: Engine, together: bool) -> None:
    history = [user("hi"), assistant("hello"), user("why?")]
    exchanges = [
        make_exchange(messages=history[:1], answers=reply("hello")),
        make_exchange(messages=history, answer_status="failed", status=502),
        make_exchange(messages=history, answers=reply("because")),
    ]
    deliver_batch(engine, exchanges, together)
    assert _current_branch(engine)[-2:] == [("user", "why?", "complete"), ("assistant", "because", "complete")]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(4,)]


@together
def test_interrupted_answer_is_part_of_the_branch(engine: Engine, together: bool) -> None:
    exchanges = [
        make_exchange(messages=question("tell"), answers=reply("Once upon"), answer_status="interrupted"),
        make_exchange(messages=question("go on"), answers=reply("a time")),
    ]
    deliver_batch(engine, exchanges, together)
    assert _current_branch(engine) == [
        ("user", "tell", "complete"),
        ("assistant", "Once upon", "interrupted"),
        ("user", "go on", "complete"),
        ("assistant", "a time", "complete"),
    ]


@together
def test_tool_calls_tool_results_parts_and_reasoning_are_stored(engine: Engine, together: bool) -> None:
    parts = [{"type": "text", "text": "Add"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
    first = make_exchange(
        messages=[{"role": "user", "content": parts, "name": "Ann"}],
        answers=[{"content": None, "tool_calls": [CALL], "reasoning_content": "I need a tool."}],
    )
    second = make_exchange(messages=[*(first.messages or []), called, result], answers=reply("It is 3."))
    deliver_batch(engine, [first, second], together)
    stored = rows_of(engine, "SELECT role, content, tool_calls, extra FROM messages ORDER BY sequence")
    assert stored == [
        ("user", parts, None, {"name": "Ann"}),
        ("assistant", None, [CALL], {"reasoning_content": "I need a tool."}),
        ("tool", "3", None, {"tool_call_id": "call_1"}),
        ("assistant", "It is 3.", None, None),
    ]


def test_concurrent_writers_neither_lose_nor_duplicate_messages(engine: Engine) -> None:
    exchanges = [
        make_exchange(
            f"shared-{number % 3}",
            messages=question(f"question {number}"),
            answers=reply(f"answer {number}"),
        )
        for number in range(60)
    ]
    # Two writers deliver every exchange, as when one has lost the acknowledgement of its commit.
    writers = [
        threading.Thread(
            target=deliver_batch, args=(engine, exchanges[first::4] + exchanges[(first + 1) % 4 :: 4], False)
        )
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


@together
def test_newest_of_messages_that_are_the_same_is_continued(engine: Engine, together: bool) -> None:
    deliver_batch(engine, [make_exchange(messages=[user("hi")], answers=reply("Yes."))], True)
    again = make_exchange(messages=[user("hi")], answers=reply("Yes."), resends_history=True)
    continued = make_exchange(messages=[user("hi"), assistant("Yes."), user("so?")], answers=reply("Well."))
    deliver_batch(engine, [again, continued], together)
    assert read_messages(engine, "one")[1].request_id == again.public_request_id


@together
@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Write a title."}]])
def test_side_request_before_the_main_line_leaves_no_trace_in_it(
    engine: Engine, together: bool, system: Messages
) -> None:
    side = make_exchange(messages=[*system, user("hi")], answers=reply("Greeting"), side_request=True)
    main: Messages = [{"role": "system", "content": "Be brief."}, user("hi")]
    first = make_exchange(messages=main, answers=reply("hello"), resends_history=True)
    deliver_batch(engine, [side, first], together)
    assert _texts(engine) == ["Be brief.", "hi", "hello"]
    assert [message.sent for message in read_messages(engine, "one")] == [None, None, None]


@together
def test_failed_regeneration_leaves_the_answer_in_the_current_branch(engine: Engine, together: bool) -> None:
    history = [user("hi"), assistant("hello"), user("so?")]
    exchanges = [
        make_exchange(messages=history[:1], answers=reply("hello")),
        make_exchange(messages=history, answers=reply("well")),
        make_exchange(messages=history, answer_status="failed", status=502),
    ]
    deliver_batch(engine, exchanges, together)
    assert _texts(engine) == ["hi", "hello", "so?", "well"]


@together
def test_first_turn_of_the_main_line_gives_the_title(engine: Engine, together: bool) -> None:
    picture: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    exchanges = [
        make_exchange(messages=[user("Write a title.")], answers=reply("A title"), side_request=True),
        make_exchange(messages=[user(picture)], answers=reply("A cat.")),
        make_exchange(messages=[user("And?")], answers=reply("No more.")),
    ]
    deliver_batch(engine, exchanges, together)
    assert rows_of(engine, "SELECT title FROM conversations") == [(None,)]
