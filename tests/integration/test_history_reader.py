"""The history of a stored conversation: its current branch up to the last answered message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mistral_api.conversations.history import HistoryReader, SessionBranch
from mistral_api.errors import Unavailable
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.recording.exchange import without_large_attachments
from mistral_api.recording.recorder import Recorder
from mistral_api.system.identifiers import new_session_id
from tests.support.conversations import conversation_reader, deliver_each
from tests.support.databases import rows_of
from tests.support.exchanges import (
    make_exchange,
    question,
    record_exchange,
    reply,
    undelivered_recorder,
    unreachable_engine,
)

CALL: ToolCall = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder without a database: its records stay pending."""
    made = undelivered_recorder(tmp_path / "journal")
    yield made
    made.close(0)


def _reader(engine: Engine) -> HistoryReader:
    """Return a reader without a journal."""
    return HistoryReader(conversation_reader(engine))


def _texts(branch: SessionBranch) -> list[Any]:
    return [message["content"] for message in branch.prompt_messages]


def test_history_of_an_unknown_session_is_empty(engine: Engine) -> None:
    assert _reader(engine).branch("local", "never-was") == SessionBranch()


def test_history_is_the_current_branch_of_the_owners_session(engine: Engine) -> None:
    start: list[ChatMessage] = [*question("hi"), {"role": "assistant", "content": "hello"}]
    deliver_each(
        engine,
        make_exchange(messages=question("hi"), answers=reply("hello")),
        make_exchange(messages=[*start, *question("old")], answers=reply("old answer")),
        make_exchange(messages=[*start, *question("new")], answers=reply("new answer")),
    )
    history = _reader(engine)
    branch = history.branch("local", "one")
    assert _texts(branch) == ["hi", "hello", "new", "new answer"]
    assert [(branch.head_id,)] == rows_of(engine, "SELECT head_id FROM conversations")
    assert history.branch("somebody else", "one") == SessionBranch()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_history_omits_unanswered_messages_and_keeps_interrupted_answers(engine: Engine, status: str) -> None:
    deliver_each(
        engine,
        make_exchange(messages=question("tell"), answers=reply("Once upon"), answer_status="interrupted"),
        make_exchange(messages=question("lost"), answer_status=status, status=500),
    )
    branch = _reader(engine).branch("local", "one")
    assert _texts(branch) == ["tell", "Once upon"]
    deliver_each(engine, make_exchange(messages=question("go on"), answers=reply("a time"), continues=branch.head_id))
    assert _texts(_reader(engine).branch("local", "one")) == ["tell", "Once upon", "go on", "a time"]


def test_history_messages_have_the_form_that_clients_send(engine: Engine) -> None:
    sent: list[Any] = [
        {"role": "user", "name": "Ann", "content": [
            {"type": "text", "text": "Add"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]  # fmt: skip
    answer = {"content": "It is 3.", "reasoning_content": "Easy."}
    deliver_each(engine, make_exchange(messages=without_large_attachments(sent, 50), answers=[answer]))
    parts = sent[0]["content"]
    gone = {"type": "text", "text": "[image/png, 121 characters of base64: no longer here]"}
    shown = [sent[0] | {"content": [parts[0], gone, parts[2]]}, *sent[1:], {"role": "assistant"} | answer]
    assert _reader(engine).branch("local", "one").prompt_messages == shown


def test_history_of_a_long_branch_is_one_query(engine: Engine) -> None:
    head = None
    for turn in range(30):
        deliver_each(engine, make_exchange(messages=question(f"q{turn}"), answers=reply(f"a{turn}"), continues=head))
        head = rows_of(engine, "SELECT head_id FROM conversations")[0][0]
    statements: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    assert len(_reader(engine).branch("local", "one").messages) == 60
    event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 1


def test_history_is_read_from_the_journal_before_it_is_delivered(engine: Engine, recorder: Recorder) -> None:
    deliver_each(engine, make_exchange(messages=question("hi"), answers=reply("hello")))
    record_exchange(recorder, make_exchange(messages=question("go on"), answers=reply("and so")))
    reader = HistoryReader(conversation_reader(engine, recorder.pending))
    assert _texts(reader.branch("local", "one")) == ["hi", "hello", "go on", "and so"]


def test_history_without_database_is_read_where_the_journal_has_all_of_it(recorder: Recorder) -> None:
    reader = HistoryReader(conversation_reader(unreachable_engine(), recorder.pending))
    with pytest.raises(Unavailable) as away:
        reader.branch("local", "two")
    assert away.value.code == "database_unavailable"
    named = make_exchange("two", messages=question("hi"), answers=reply("hello"))
    made = make_exchange(messages=question("hi"), answers=reply("hello"))
    made.session_id = new_session_id(made.id)
    for exchange in (named, made):
        record_exchange(recorder, exchange)
    with pytest.raises(Unavailable):
        reader.branch("local", "two")
    assert _texts(reader.branch("local", made.session_id)) == ["hi", "hello"]
