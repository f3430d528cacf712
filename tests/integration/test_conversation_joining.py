"""What was not recognised when the request came is joined when it is delivered."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation
from mistral_api.conversations.editing import delete_conversation
from mistral_api.conversations.session_aliases import session_ids_of
from mistral_api.recording.exchange import Exchange
from tests.support.conversations import branch_texts, deliver_batch, together
from tests.support.databases import count_rows, rows_of
from tests.support.dialogues import said
from tests.support.exchanges import make_exchange, reply

LONG = "The capital of France is Paris, which lies on the Seine and has been the capital for many centuries."


def turn(session_id: str, *texts: str, new: bool = True, **fields: Any) -> Exchange:
    """Return an exchange: all texts but the last were sent, the last one was answered."""
    return make_exchange(
        session_id,
        messages=said(*texts[:-1]),
        answers=reply(texts[-1]),
        model="a-model",
        is_new_session=new,
        **fields,
    )


def sessions(engine: Engine) -> list[str]:
    return [session for (session,) in rows_of(engine, "SELECT session_id FROM conversations ORDER BY created_at")]


def aliases(engine: Engine) -> dict[str, str]:
    joined = "session_aliases AS a JOIN conversations AS c ON c.id = a.conversation_id"
    found = rows_of(engine, f"SELECT a.session_id, c.session_id FROM {joined}")
    return {str(alias): str(session) for alias, session in found}


@together
def test_a_turn_that_nobody_recognised_goes_into_its_conversation(engine: Engine, together: bool) -> None:
    deliver_batch(engine, [turn("sess_1", "Hi", "Hello!"), turn("sess_2", "Hi", "Hello!", "And?", "Well.")], together)
    assert sessions(engine) == ["sess_1"]
    assert aliases(engine) == {"sess_2": "sess_1"}
    assert branch_texts(engine, "sess_1") == branch_texts(engine, "sess_2") == ["Hi", "Hello!", "And?", "Well."]


@together
def test_every_turn_of_a_dialogue_that_is_never_recognised_is_joined(engine: Engine, together: bool) -> None:
    texts = [f"Text {number}" for number in range(10)]
    turns = [turn(f"sess_{number}", *texts[: 2 * number + 2]) for number in range(5)]
    deliver_batch(engine, turns, together)
    assert branch_texts(engine, "sess_4") == texts
    assert aliases(engine) == {f"sess_{number}": "sess_0" for number in range(1, 5)}


@together
def test_later_turns_on_the_session_that_was_given_out_follow(engine: Engine, together: bool) -> None:
    exchanges = [
        turn("sess_1", "Hi", "Hello!"),
        turn("sess_2", "Hi", "Hello!", "And?", "Well."),
        turn("sess_2", "Only the new message", "I see.", new=False),
        turn("sess_2", "Hi", "Hello!", "And?", "Well.", "Only the new message", "I see.", "So?", "So.", new=False),
    ]
    deliver_batch(engine, exchanges, together)
    expected = ["Hi", "Hello!", "And?", "Well.", "Only the new message", "I see.", "So?", "So."]
    assert branch_texts(engine, "sess_1") == expected
    assert sessions(engine) == ["sess_1"]
    assert rows_of(engine, "SELECT message_count FROM conversations") == [(8,)]


@together
def test_a_turn_recognised_on_a_session_that_was_given_out_is_joined_too(engine: Engine, together: bool) -> None:
    exchanges = [
        turn("sess_1", "Hi", "Hello!"),
        turn("sess_2", "Hi", "Hello!", "And?", "Well."),
        turn("sess_3", "Hi", "Hello!", "And?", "Well.", "So?", "So."),
    ]
    deliver_batch(engine, exchanges, together)
    assert aliases(engine) == {"sess_2": "sess_1", "sess_3": "sess_1"}
    assert branch_texts(engine, "sess_3") == ["Hi", "Hello!", "And?", "Well.", "So?", "So."]


@together
def test_other_owners_conversations_are_not_joined(engine: Engine, together: bool) -> None:
    theirs = turn("sess_1", "Hi", LONG, owner="bob")
    deliver_batch(engine, [theirs, turn("sess_2", "Hi", LONG, "And?", "Well.")], together)
    assert (sessions(engine), aliases(engine)) == (["sess_1", "sess_2"], {})


@together
def test_a_session_that_the_client_named_is_not_joined(engine: Engine, together: bool) -> None:
    named = turn("named", "Hi", LONG, "And?", "Well.", new=False)
    deliver_batch(engine, [turn("sess_1", "Hi", LONG), named], together)
    assert (set(sessions(engine)), aliases(engine)) == ({"sess_1", "named"}, {})


@together
def test_a_greeting_or_an_example_is_not_enough(engine: Engine, together: bool) -> None:
    exchanges = [
        turn("sess_1", "Hi", "Hello!"),
        turn("sess_2", "Good morning", "Hello!", "And?", "Well."),
        turn("sess_3", "2 + 2", LONG, "3 + 3", "Six"),
        turn("sess_4", "2 + 2", LONG, "4 + 4", "Eight"),
    ]
    deliver_batch(engine, exchanges, together)
    assert aliases(engine) == {}


@together
def test_a_window_and_an_interrupted_answer_are_joined(engine: Engine, together: bool) -> None:
    exchanges = [
        turn("sess_1", "Read to me", "It was the best of times, it was", answer_status="interrupted"),
        turn("sess_2", "Read to me", "It was the best of", "Go on", LONG),
        turn("sess_3", "A summary.", LONG, "Thanks", "Bye"),
    ]
    deliver_batch(engine, exchanges, together)
    assert aliases(engine) == {"sess_2": "sess_1", "sess_3": "sess_1"}
    assert len(branch_texts(engine, "sess_1")) == 6


@together
def test_an_answer_that_was_cut_off_is_recognised_in_every_later_turn(engine: Engine, together: bool) -> None:
    sent = ["Hi", "Hello!", "Count", "1, 2, 3, 4", "On", "5", "And on", "6"]
    exchanges = [
        turn("sess_1", "Hi", "Hello!"),
        turn("sess_1", "Hi", "Hello!", "Count", "1, 2", answer_status="interrupted", resends_history=True),
        turn("sess_1", *sent[:6], resends_history=True),
        turn("sess_1", *sent, resends_history=True),
    ]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "sess_1") == ["Hi", "Hello!", "Count", "1, 2", "On", "5", "And on", "6"]
    assert count_rows(engine, "messages") == 8


@together
def test_a_lost_answer_in_the_words_of_the_one_before_it_is_no_repetition(engine: Engine, together: bool) -> None:
    """The process of the second and third answer died before it had recorded a word of them; their client had some."""
    sent = ["Hi", "Hello!", "Well?", "Good", "And?", "Good", "So?", "Fine"]
    lost: dict[str, Any] = {"answer_status": "interrupted", "status": 500, "error_code": "interrupted"}
    exchanges = [turn("sess_1", *sent[:2])]
    for length in (4, 6):
        exchanges.append(turn("sess_1", *sent[:length], resends_history=True, **lost))
        exchanges[-1].answers = None
    exchanges.append(turn("sess_1", *sent, resends_history=True))
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "sess_1") == sent
    assert count_rows(engine, "messages") == 8


@together
def test_of_twins_the_one_is_joined_that_was_not_continued(engine: Engine, together: bool) -> None:
    exchanges = [
        turn("sess_1", "Hi", "Hello!"),
        turn("sess_2", "Hi", "Hello!"),
        turn("sess_2", "Hi", "Hello!", "Two?", "Two.", new=False, resends_history=True),
        turn("sess_3", "Hi", "Hello!", "One?", "One."),
    ]
    deliver_batch(engine, exchanges, together)
    assert aliases(engine) == {"sess_3": "sess_1"}


def test_stored_objects_belong_to_the_joined_conversation(engine: Engine) -> None:
    second = turn("sess_2", "Hi", "Hello!", "And?", "Well.")
    second.storing = {"object": "chat.completion", "metadata": {}, "request": {}}
    second.stored = {"object": "chat.completion", "id": "chatcmpl-1", "created": 1, "model": "m", "choices": []}
    deliver_batch(engine, [turn("sess_1", "Hi", "Hello!"), second], together=True)
    query = "SELECT c.session_id FROM stored_completions AS s JOIN conversations AS c ON c.id = s.conversation_id"
    assert rows_of(engine, query) == [("sess_1",)]


@pytest.mark.parametrize("by", ["sess_1", "sess_2"])
def test_deleting_the_joined_conversation_deletes_its_aliases(engine: Engine, by: str) -> None:
    deliver_batch(
        engine, [turn("sess_1", "Hi", "Hello!"), turn("sess_2", "Hi", "Hello!", "And?", "Well.")], together=True
    )
    with Session(engine) as session:
        assert session_ids_of(session, find_conversation(session, "local", by).id) == ["sess_1", "sess_2"]
        delete_conversation(session, "local", by)
    assert (count_rows(engine, "conversations"), count_rows(engine, "session_aliases")) == (0, 0)
    # The session id may be used once more.
    deliver_batch(engine, [turn("sess_2", "New", "Words", new=False)], together=True)
    assert branch_texts(engine, "sess_2") == ["New", "Words"]


def test_an_exchange_that_is_delivered_again_is_joined_once(engine: Engine) -> None:
    first, second = turn("sess_1", "Hi", "Hello!"), turn("sess_2", "Hi", "Hello!", "And?", "Well.")
    again = turn("sess_2", "Hi", "Hello!", "And?", "Well.", new=True)
    again.id, again.created_at = second.id, second.created_at
    deliver_batch(engine, [first, second], together=False)
    deliver_batch(engine, [again], together=False)
    assert branch_texts(engine, "sess_2") == ["Hi", "Hello!", "And?", "Well."]
