"""Reads before delivery: what waits in the journal is laid over PostgreSQL's rows, and reads as it will afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import conversation_summary, message_body
from mistral_api.conversations.conversation_list import ConversationLister
from mistral_api.conversations.conversation_reader import ConversationReader
from mistral_api.conversations.editing import change_conversation, delete_conversation
from mistral_api.conversations.history import HistoryReader
from mistral_api.conversations.items import ItemPageQuery, list_items, read_item, resolve_references
from mistral_api.conversations.stored_completions import CompletionReader, completion_body
from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.conversations import Conversation
from mistral_api.delivery.writer import writer_starter
from mistral_api.errors import NotFound
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.pending import PendingExchanges
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.system.identifiers import new_id
from mistral_api.wire.queries import CompletionFilter, ConversationFilter
from tests.integration import test_message_tree_properties as dialogues
from tests.support.conversations import (
    assistant,
    conversation_lister,
    conversation_reader,
    deliver_batch,
    deliver_each,
    user,
)
from tests.support.databases import empty_tables
from tests.support.exchanges import make_exchange, question, record_exchange, reply

Shown = dict[str, Any]


def _pending(exchanges: Sequence[Exchange]) -> PendingExchanges:
    """Return what a reader sees where these exchanges wait."""
    return PendingExchanges(lambda: exchanges)


def _page(
    engine: Engine, waiting: Sequence[Exchange], limit: int = 500, **beside: UUID | None
) -> tuple[Shown, list[Any], bool]:
    """Return the conversation ``one`` with a page of its messages, as clients see them, and whether more follow."""
    reader = conversation_reader(engine, _pending(waiting))
    conversation, page = reader.read_page("local", "one", limit, beside.get("before"), beside.get("after"))
    return _shown(conversation), [message_body(message) for message in page.messages], page.has_more


def _shown(conversation: Conversation) -> Shown:
    return dict(conversation_summary(conversation))


def _read_everything(engine: Engine, waiting: Sequence[Exchange]) -> list[Any]:
    """Return the conversation ``one`` as every kind of read shows it."""
    pending = _pending(waiting)
    reader = conversation_reader(engine, pending)
    conversation, messages, _ = _page(engine, waiting)
    ids = [UUID(message["id"]) for message in messages]
    pages = [_page(engine, waiting, 2, **{side: each}) for each in ids for side in ("before", "after")]
    items = [list_items(reader, "local", "one", ItemPageQuery(1000, order)) for order in (True, False)]
    some = [
        list_items(reader, "local", "one", ItemPageQuery(2, order, item["id"]))
        for order in (True, False)
        for item in items[0][0]
    ]
    single = [read_item(reader, "local", "one", item["id"]) for item in items[0][0]]
    history = HistoryReader(reader).branch("local", "one")
    listed, _ = conversation_lister(engine, pending).list_page("local", {"limit": 100})
    return [
        conversation, messages, pages, items, some, single, history, _page(engine, waiting, 3),
        [_shown(each.conversation) for each in listed],
    ]  # fmt: skip


clients = st.fixed_dictionaries({"trims": st.booleans(), "crlf": st.booleans(), "clock": st.booleans()})
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(dialogues.ACTIONS), st.integers(0, 9)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.tuples(clients, clients), steps=steps, share=st.floats(0, 1))
@pytest.mark.slow
def test_read_before_delivery_equals_the_read_after_it(
    database_engine: Engine, kinds: tuple[Any, Any], steps: list[tuple[int, str, int]], share: float
) -> None:
    model = dialogues.Conversation()
    programs = [dialogues.Client(model, **kind) for kind in kinds]
    turns = [programs[who].turn(action, choice) for who, action, choice in steps]
    exchanges = [replace(turn, session_id="one") for turn in turns if turn is not None]
    if not exchanges:
        return
    empty_tables(database_engine)
    delivered = int(len(exchanges) * share)
    deliver_each(database_engine, *exchanges[:delivered])
    before = _read_everything(database_engine, exchanges[delivered:])
    deliver_batch(database_engine, exchanges[delivered:], together=False)
    after = _read_everything(database_engine, [])
    assert before == after
    # Rows that are on their way are seen once.
    assert _read_everything(database_engine, exchanges) == after


def test_pending_edit_far_above_is_read_with_a_second_query(engine: Engine) -> None:
    said = [(assistant if number % 2 else user)(f"message {number}") for number in range(40)]
    deliver_each(engine, make_exchange(messages=said[:39], answers=reply("message 39")))
    edit = make_exchange(messages=[*said[:10], user("something else")], answers=reply("well"))
    for limit in (3, 5, 11, 100):
        _, messages, has_more = _page(engine, [edit], limit)
        texts = [f"message {number}" for number in range(10)] + ["something else", "well"]
        assert [message["content"] for message in messages] == texts[-limit:]
        assert has_more == (limit < 12)
    oldest = ItemPageQuery(4, newest_first=False)
    items: tuple[list[Any], bool] = list_items(conversation_reader(engine, _pending([edit])), "local", "one", oldest)
    assert ([item["content"][0]["text"] for item in items[0]], items[1]) == (texts[:4], True)


def test_pending_turn_may_answer_a_stored_message(engine: Engine) -> None:
    failed = make_exchange(messages=question("hello?"), answer_status="failed", status=502)
    retried = make_exchange(messages=question("hello?"), answers=reply("hi"))
    deliver_each(engine, failed)
    assert [message["status"] for message in _page(engine, [])[1]] == ["failed"]
    assert [message["status"] for message in _page(engine, [retried])[1]] == ["complete", "complete"]


def test_conversation_is_its_owners_also_before_delivery(engine: Engine) -> None:
    hers = make_exchange("hers", messages=question("secret"), answers=reply("word"), owner="somebody else")
    reader, lister = conversation_reader(engine, _pending([hers])), conversation_lister(engine, _pending([hers]))
    with pytest.raises(NotFound):
        reader.read_page("local", "hers", 10, None, None)
    assert lister.list_page("local", {"limit": 10})[0] == []
    assert lister.list_page("local", {"limit": 10, "q": "secret"})[0] == []
    assert len(lister.list_page("somebody else", {"limit": 10, "q": "secret"})[0]) == 1


def test_unknown_message_or_item_is_not_found_beside_pending_ones(engine: Engine) -> None:
    turn = make_exchange(messages=question("a"), answers=reply("b"))
    for param in ("before", "after"):
        beside: Any = {param: new_id()}
        with pytest.raises(NotFound) as missing:
            _page(engine, [turn], **beside)
        assert missing.value.param == param
    with pytest.raises(NotFound):
        read_item(conversation_reader(engine, _pending([turn])), "local", "one", f"msg_{new_id().hex}")


def test_references_are_resolved_to_pending_and_stored_items(engine: Engine) -> None:
    stored, turn = (make_exchange(name, messages=question(name), answers=reply(f"re {name}")) for name in ("s", "p"))
    deliver_each(engine, stored)
    reader = conversation_reader(engine, _pending([turn]))
    shown = [list_items(reader, "local", name, ItemPageQuery(10))[0] for name in ("s", "p")]
    items = [item for each in shown for item in each]
    references: list[Any] = [{"type": "item_reference", "id": item["id"]} for item in items]
    assert resolve_references(reader, "local", references, "input") == items
    with pytest.raises(NotFound):
        resolve_references(reader, "somebody else", references, "input")


def _names(engine: Engine, waiting: Sequence[Exchange], **query: Any) -> tuple[list[str], bool]:
    wanted = cast("ConversationFilter", {"limit": 20} | query)
    listed, more = conversation_lister(engine, _pending(waiting)).list_page("local", wanted)
    return [each.conversation.session_id for each in listed], more


def _said_at(session_id: str, seconds: int, text: str) -> Exchange:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return make_exchange(session_id, messages=question(text), answers=reply(f"re {text}"), created_at=moment)


def test_list_puts_conversations_where_their_pending_turns_put_them(engine: Engine) -> None:
    deliver_each(engine, *(_said_at(f"s{number}", number, f"word{number}") for number in range(6)))
    waiting = [_said_at("s1", 10, "again"), _said_at("new", 11, "quagga"), _said_at("s3", 12, "more")]
    expected = ["s3", "new", "s1", "s5", "s4", "s2", "s0"]
    assert _names(engine, waiting) == (expected, False)
    for limit in (1, 2, 3, 4):
        seen: list[str] = []
        more = True
        while more:
            names, more = _names(engine, waiting, limit=limit, **({"after": seen[-1]} if seen else {}))
            seen += names
        assert seen == expected
    since = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + 4
    assert _names(engine, waiting, since=since) == (expected[:5], False)
    with pytest.raises(NotFound):
        _names(engine, waiting, after="never")


def test_search_finds_pending_and_stored_words_of_one_conversation(engine: Engine) -> None:
    deliver_each(engine, *(_said_at(f"s{number}", number, f"zebra word{number}") for number in range(4)))
    waiting = [_said_at("s1", 10, "giraffe"), _said_at("new", 11, "quagga zebra")]
    assert _names(engine, waiting, q="giraffe") == (["s1"], False)
    assert _names(engine, waiting, q="word1") == (["s1"], False)
    assert _names(engine, waiting, q="zebra") == (["new", "s1", "s3", "s2", "s0"], False)
    assert _names(engine, waiting, q="zebra", limit=2) == (["new", "s1"], True)
    assert _names(engine, waiting, q="zebra", after="s1") == (["s3", "s2", "s0"], False)
    assert _names(engine, waiting, q="okapi") == ([], False)


def test_deleted_or_renamed_conversation_stays_so_in_the_list(engine: Engine) -> None:
    turns = [_said_at("one", 1, "a"), _said_at("two", 2, "b")]
    deliver_each(engine, *turns)
    with Session(engine) as session:
        delete_conversation(session, "local", "one")
        change_conversation(session, "local", "two", {"title": "Renamed"})
    waiting = [_said_at("two", 3, "c")]
    listed, _ = conversation_lister(engine, _pending(waiting)).list_page("local", {"limit": 5})
    assert [
        (each.conversation.session_id, each.conversation.title, each.conversation.message_count) for each in listed
    ] == [("two", "Renamed", 4)]
    # Their rows may still be in the journal when PostgreSQL has them already.
    assert _names(engine, [*turns, *waiting]) == (["two"], False)


def _completion(number: int, **fields: Any) -> Exchange:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    body = {"id": f"chatcmpl-{number}", "object": "chat.completion", "model": "m", "choices": []}
    storing = {"object": "chat.completion", "metadata": {"even": str(number % 2 == 0)}, "request": {"seed": number}}
    return make_exchange(
        f"c{number}", messages=question("a"), answers=reply("b"), created_at=moment, storing=storing, stored=body
    )


def test_stored_completions_are_found_and_listed_before_delivery(engine: Engine) -> None:
    exchanges = [_completion(number) for number in range(8)]
    deliver_each(engine, *exchanges[:4])
    filters: list[dict[str, Any]] = [{}, {"metadata": {"even": "True"}}, {"model": "other"}]
    filters += [{"after": f"chatcmpl-{number}"} for number in range(8)]

    def read(waiting: Sequence[Exchange]) -> list[Any]:
        reader = CompletionReader(DatabaseReads(engine), _pending(waiting))
        found = [reader.find("local", f"chatcmpl-{number}") for number in range(8)]
        pages = [
            reader.list_page("local", cast("CompletionFilter", {"order": order, "limit": limit} | more))
            for order in ("asc", "desc")
            for limit in (3, 20)
            for more in filters
        ]
        bodies = [(completion_body(each), each.messages, each.created_at) for each in found]
        for completion_id, owner in (("chatcmpl-9", "local"), ("chatcmpl-7", "somebody else")):
            with pytest.raises(NotFound):
                reader.find(owner, completion_id)
        with pytest.raises(NotFound):
            reader.list_page("local", cast("CompletionFilter", {"order": "asc", "limit": 3, "after": "chatcmpl-9"}))
        return [bodies, [([each.id for each in page], more) for page, more in pages]]

    before, seen_twice = read(exchanges[4:]), read(exchanges)
    deliver_each(engine, *exchanges[4:])
    assert before == read([]) == seen_twice


class ReadingThread(threading.Thread):
    """Reads the conversation ``one`` again and again; ``failures`` are reads that do not show each turn once."""

    def __init__(self, engine: Engine, recorder: Recorder, done: threading.Event) -> None:
        super().__init__()
        reads = DatabaseReads(engine)
        self._reader = ConversationReader(reads, recorder.pending)
        self._lister = ConversationLister(reads, recorder.pending)
        self._done = done
        self.recorded = self.reads = 0
        self.failures: list[Any] = []

    def run(self) -> None:
        while not self._done.is_set():
            least = 2 * self.recorded
            conversation, page = self._reader.read_page("local", "one", 500, None, None)
            texts = [message.content for message in page.messages]
            listed = self._lister.list_page("local", {"limit": 5})[0]
            counts = [conversation.message_count, *(each.conversation.message_count for each in listed)]
            expected = [f"{kind} {number}" for number in range(len(texts) // 2) for kind in ("q", "a")]
            if texts != expected or len(texts) < least or counts[0] != len(texts) or counts[1] < least:
                self.failures.append((least, texts, counts))
            self.reads += 1


def test_each_message_is_read_exactly_once_while_the_writer_delivers(engine: Engine, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RecordingPolicy(), writer_starter(engine))
    recorder.start()
    record_exchange(recorder, make_exchange(messages=question("q 0"), answers=reply("a 0")))
    done = threading.Event()
    threads = [ReadingThread(engine, recorder, done) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 120):
        record_exchange(recorder, make_exchange(messages=question(f"q {number}"), answers=reply(f"a {number}")))
        for thread in threads:
            thread.recorded = number + 1
        if number % 3 == 0:
            recorder.require_delivered("local", "one")
    done.set()
    for thread in threads:
        thread.join(30)
    recorder.close()
    assert [failure for thread in threads for failure in thread.failures] == []
    assert all(thread.reads > 10 for thread in threads)


def test_turns_under_every_session_id_of_a_conversation_are_read(engine: Engine) -> None:
    deliver_each(engine, _said_at("one", 1, "a"))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO session_aliases (owner, session_id, conversation_id) "
                "SELECT owner, 'alias', id FROM conversations"
            )
        )
    waiting = [_said_at("one", 2, "b"), _said_at("alias", 3, "c"), _said_at("one", 4, "d")]
    reader = conversation_reader(engine, _pending(waiting))
    expected = [said for text_said in "abcd" for said in (text_said, f"re {text_said}")]
    for name in ("one", "alias"):
        conversation, page = reader.read_page("local", name, 100, None, None)
        assert (conversation.session_id, [message.content for message in page.messages]) == ("one", expected)
        assert [each["content"][0]["text"] for each in _items(reader, name)] == expected
    assert _names(engine, waiting) == (["one"], False)
    assert _names(engine, waiting[1:2]) == (["one"], False)
    assert _names(engine, waiting, q="c") == (["one"], False)
    deliver_each(engine, *waiting)
    assert [
        each.content for each in conversation_reader(engine).read_page("local", "alias", 100, None, None)[1].messages
    ]


def _items(reader: ConversationReader, session_id: str) -> list[Any]:
    items: list[Any] = list_items(reader, "local", session_id, ItemPageQuery(100, newest_first=False))[0]
    return items


def test_search_shows_where_pending_messages_are_hit(engine: Engine) -> None:
    deliver_each(engine, _said_at("one", 1, "a zebra"))
    waiting = [_said_at("one", 2, "another zebra")]
    wanted = cast("ConversationFilter", {"limit": 5, "q": "zebra"})
    ((found,), _) = conversation_lister(engine, _pending(waiting)).list_page("local", wanted)
    snippets = [match["snippet"] for match in found.matches or []]
    marked = "<mark>zebra</mark>"
    assert snippets == [f"a {marked}", f"re another {marked}", f"another {marked}", f"re a {marked}"]
    deliver_each(engine, *waiting)
    ((afterwards,), _) = conversation_lister(engine).list_page("local", wanted)
    assert found.matches == afterwards.matches
