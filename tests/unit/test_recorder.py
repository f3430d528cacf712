"""The recorder while the disk is full."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mistral_api.conversations.pending_turns import starts_session
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import Journal
from mistral_api.recording.recorder import Recorder, RecordingFailed, RecordingPolicy
from mistral_api.system.identifiers import GENERATED_SESSION_PREFIX
from tests.support.exchanges import make_exchange, question, record_exchange, undelivered_recorder
from tests.support.processes import wait_for


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder without a database."""
    made = undelivered_recorder(tmp_path / "journal")
    made.start()
    yield made
    made.close(seconds=0)


def _full(*_arguments: object) -> int:
    raise sqlite3.OperationalError("database or disk is full")


def test_exchanges_are_held_in_memory_while_the_disk_is_full_and_written_later(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = make_exchange("begun before", messages=question("1"))
    position = recorder.begin(begun, lambda: None)
    with monkeypatch.context() as full:
        for name in ("begin", "end", "add", "require_writable"):
            full.setattr(Journal, name, _full)
        recorder.end(position, begun)
        for number in range(3):
            exchange = make_exchange(f"while full {number}", messages=question("2"))
            assert recorder.begin(exchange, lambda: None) is None
            recorder.end(None, exchange)
        state = recorder.state()
        assert (state.healthy, state.pending) == (False, 0)
        assert [record.levelname for record in caplog.records if "not being recorded" in record.message] == ["WARNING"]
    later = make_exchange("later", messages=question("3"))
    record_exchange(recorder, later)
    state = recorder.state()
    assert (state.healthy, state.pending) == (True, 5)


def test_recorder_recovers_from_a_full_disk_without_a_request(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Journal, "add", _full)
        recorder.end(None, make_exchange())
    assert recorder.state().healthy
    assert recorder.state().pending == 1


def test_required_recording_refuses_exchanges_without_a_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be", encoding="utf-8")
    recorder = undelivered_recorder(tmp_path / "journal", RecordingPolicy(required=True))
    recorder.start()
    assert not recorder.state().healthy
    with pytest.raises(RecordingFailed):
        recorder.begin(make_exchange(), lambda: None)
    recorder.close()


def test_recorder_opens_a_journal_as_soon_as_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistral_api.recording.recorder.RETRY_SECONDS", 0.0)
    folder = tmp_path / "journal"
    folder.write_text("in the way", encoding="utf-8")
    recorder = undelivered_recorder(folder)
    recorder.start()
    exchange = make_exchange()
    record_exchange(recorder, exchange)
    assert not recorder.state().healthy
    folder.unlink()
    assert recorder.state().pending == 1
    assert recorder.state().healthy
    recorder.close(seconds=0)
    with closing(sqlite3.connect(folder / "journal.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM endings").fetchone() == (1,)


def test_open_exchange_is_checkpointed(recorder: Recorder, tmp_path: Path) -> None:
    exchange = make_exchange(messages=question("Tell me"))
    asked: list[bool] = []

    def progress() -> bytes | None:
        asked.append(True)
        return exchange.interrupted_outcome() if len(asked) == 1 else None

    recorder.begin(exchange, progress)
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.sqlite3")) as connection:
        wait_for(lambda: connection.execute("SELECT outcome FROM checkpoints").fetchall(), "a checkpoint", 5)
        (outcome,) = connection.execute("SELECT outcome FROM checkpoints").fetchone()
    assert b'"interrupted"' in outcome


def test_each_of_many_open_exchanges_is_checkpointed_until_it_ends(recorder: Recorder, tmp_path: Path) -> None:
    exchanges = [make_exchange(f"{number}", messages=question("Tell me")) for number in range(150)]
    asked: Counter[str | None] = Counter()

    def progress(exchange: Exchange) -> bytes:
        asked[exchange.session_id] += 1
        return exchange.interrupted_outcome()

    positions = [recorder.begin(exchange, partial(progress, exchange)) for exchange in exchanges]
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.sqlite3")) as connection:
        count = "SELECT count(*) FROM checkpoints"
        wait_for(lambda: connection.execute(count).fetchone() == (len(exchanges),), "every checkpoint", 10)
    for position, exchange in zip(positions[1:], exchanges[1:], strict=True):
        recorder.end(position, exchange)
    ended = asked["149"]
    wait_for(lambda: asked["0"] >= ended + 2, "two more rounds", 10)
    assert asked["149"] <= ended + 1


def test_first_request_of_a_session_knows_of_one_that_ended_before_it(recorder: Recorder) -> None:
    alone, first = make_exchange(messages=question("1")), make_exchange(messages=question("2"))
    for exchange in (alone, first):
        exchange.session_id = f"{GENERATED_SESSION_PREFIX}{exchange.id.hex}"
    position = recorder.begin(first, lambda: None)
    record_exchange(recorder, alone)
    record_exchange(recorder, make_exchange(first.session_id, messages=question("3")))
    recorder.end(position, first)
    pending = {each.id: each for each in recorder.pending.newest("local", 10)}
    assert [starts_session(pending[each.id]) for each in (alone, first)] == [True, False]


@pytest.mark.parametrize("other", ["none", "before", "there", "gone"])
def test_first_request_of_a_session_may_be_overtaken_in_any_other_process(
    recorder: Recorder, tmp_path: Path, other: str
) -> None:
    first, unseen = (make_exchange(messages=question("1"), stream=stream) for stream in (True, False))
    for exchange in (first, unseen):
        exchange.session_id = f"{GENERATED_SESSION_PREFIX}{exchange.id.hex}"
    another = undelivered_recorder(tmp_path / "journal")
    if other == "before":
        another.start()
    positions = [(recorder.begin(exchange, lambda: None), exchange) for exchange in (first, unseen)]
    if other != "none":
        record_exchange(another, make_exchange(first.session_id, messages=question("2")))
        if other == "gone":
            another.close(0)
    for position, exchange in positions:
        recorder.end(position, exchange)
    another.close(0)
    assert starts_session(first) is (other == "none")
    assert starts_session(unseen)  # whose session no client has known before its end


@pytest.mark.parametrize(
    ("policy", "unstored"),
    [
        (RecordingPolicy(), False),
        (RecordingPolicy(keeps_unstored=True), True),
        (RecordingPolicy(store_content=False, keeps_unstored=True), False),
    ],
    ids=["client's word", "owner's word", "no text at all"],
)
def test_text_of_a_request_that_is_not_to_be_stored_is_kept_where_the_owner_wants_it(
    tmp_path: Path, policy: RecordingPolicy, unstored: bool
) -> None:
    recorder = undelivered_recorder(tmp_path / "journal", policy)
    messages: list[ChatMessage] = [{"role": "user", "content": "Hello"}]
    assert (recorder.recordable_messages(messages, store=False) == messages) is unstored
    assert (recorder.recordable_messages(messages) == messages) is policy.store_content
    recorder.close()
