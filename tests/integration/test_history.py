"""What of a stored conversation is its history: the current branch, as far as it was answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mistral_api.conversations.history import HistoryReader, SessionBranch
from mistral_api.conversations.message_matching import message_chains
from mistral_api.delivery.writer import BatchInserter, writer_starter
from mistral_api.errors import Unavailable
from mistral_api.recording.exchange import without_large_attachments
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from tests.support.databases import rows_of
from tests.support.exchanges import an_exchange, answered, engine_that_is_away, record, said

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder whose PostgreSQL is away: what it has is on the way for ever."""
    made = Recorder(tmp_path / "journal", RecordingPolicy(), writer_starter(engine_that_is_away()))
    yield made
    made.close(0)


def _history(engine: Engine) -> HistoryReader:
    """With a recorder that has nothing, since it never started."""
    return HistoryReader(engine, Recorder(Path(os.devnull), RecordingPolicy(), writer_starter(engine)))


def _deliver(engine: Engine, *exchanges: Any) -> None:
    for exchange in exchanges:
        BatchInserter(engine).insert([exchange])


def _texts(branch: SessionBranch) -> list[Any]:
    return [message["content"] for message in branch.messages]


def test_a_session_without_messages_has_none(engine: Engine) -> None:
    assert _history(engine).branch("local", "never-was") == SessionBranch()


def test_it_is_the_current_branch_of_the_callers_own_session(engine: Engine) -> None:
    start = [*said("hi"), {"role": "assistant", "content": "hello"}]
    _deliver(
        engine,
        an_exchange(messages=said("hi"), answers=answered("hello")),
        an_exchange(messages=[*start, *said("old")], answers=answered("old answer")),
        an_exchange(messages=[*start, *said("new")], answers=answered("new answer")),
    )
    history = _history(engine)
    branch = history.branch("local", "one")
    assert _texts(branch) == ["hi", "hello", "new", "new answer"]
    assert branch.chains == message_chains(branch.messages)
    assert [(branch.head_id,)] == rows_of(engine, "SELECT head_id FROM conversations")
    assert history.branch("somebody else", "one") == SessionBranch()
    old = message_chains([*start, *said("old")])
    assert history.has_any_chain("local", "one", old[2:])
    assert not history.has_any_chain("local", "one", message_chains(said("never said")))
    assert not history.has_any_chain("somebody else", "one", old)


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_was_never_answered_is_left_out_and_what_was_cut_off_stays(engine: Engine, status: str) -> None:
    _deliver(
        engine,
        an_exchange(messages=said("tell"), answers=answered("Once upon"), answer_status="interrupted"),
        an_exchange(messages=said("lost"), answer_status=status, status=500),
    )
    branch = _history(engine).branch("local", "one")
    assert _texts(branch) == ["tell", "Once upon"]
    _deliver(engine, an_exchange(messages=said("go on"), answers=answered("a time"), continues=branch.head_id))
    assert _texts(_history(engine).branch("local", "one")) == ["tell", "Once upon", "go on", "a time"]


def test_messages_are_as_a_client_would_send_them(engine: Engine) -> None:
    sent: list[dict[str, Any]] = [
        {"role": "user", "name": "Ann", "content": [
            {"type": "text", "text": "Add"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]  # fmt: skip
    answer = {"content": "It is 3.", "reasoning_content": "Easy."}
    _deliver(engine, an_exchange(messages=without_large_attachments(sent, 50), answers=[answer]))
    parts = sent[0]["content"]
    gone = {"type": "text", "text": "[image/png, 121 characters of base64: no longer here]"}
    shown = [sent[0] | {"content": [parts[0], gone, parts[2]]}, *sent[1:], {"role": "assistant"} | answer]
    assert _history(engine).branch("local", "one").messages == shown


def test_a_long_branch_is_one_query(engine: Engine) -> None:
    head = None
    for turn in range(30):
        _deliver(engine, an_exchange(messages=said(f"q{turn}"), answers=answered(f"a{turn}"), continues=head))
        head = rows_of(engine, "SELECT head_id FROM conversations")[0][0]
    statements: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    assert len(_history(engine).branch("local", "one").messages) == 60
    event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 1


def test_without_a_database_or_with_records_on_the_way_it_says_so(engine: Engine, recorder: Recorder) -> None:
    with pytest.raises(Unavailable) as away:
        HistoryReader(engine_that_is_away(), recorder).branch("local", "two")
    assert away.value.code == "database_unavailable"
    record(recorder, an_exchange(messages=said("hi"), answers=answered("hello")))
    with pytest.raises(Unavailable) as delayed:
        HistoryReader(engine, recorder).branch("local", "one")
    assert delayed.value.code == "recording_delayed"
