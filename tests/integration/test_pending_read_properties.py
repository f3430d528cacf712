"""Generated turns of few different messages: what is read before delivery is what is read after it, to the id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mistral_api.conversations.conversation_reader import ConversationReader
from mistral_api.conversations.pending_turns import possible_ids
from mistral_api.conversations.stored_conversation import BranchQuery
from mistral_api.conversations.stored_message import MESSAGE_COLUMNS
from mistral_api.database.reads import DatabaseReads
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.pending import PendingExchanges
from tests.support.conversations import deliver_batch
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, reply

# Few texts, so that many messages are the same; one answer is long enough to be distinctive.
QUESTIONS = ("One?", "Two?", "Go on.")
ANSWERS = ("Yes.", "No.", "A long answer. " * 8)
SYSTEMS = ("", "", "Be brief.", "It is noon.")


@dataclass(frozen=True)
class Turn:
    """What a client sends: a system text, texts by turns of user and assistant, and what it gets."""

    system: str
    texts: tuple[tuple[int, int], ...]
    last: int
    answer: int
    answers: int
    status: str
    resends_history: bool
    side_request: bool
    trims: bool
    deliver: int

    @property
    def messages(self) -> list[ChatMessage]:
        """The sent list, which ends with a question."""
        messages: list[ChatMessage] = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in self.texts:
            text = ANSWERS[answer].strip() if self.trims else ANSWERS[answer]
            messages += [{"role": "user", "content": QUESTIONS[question]}, {"role": "assistant", "content": text}]
        return [*messages, {"role": "user", "content": QUESTIONS[self.last]}]

    def exchange(self, session_id: str) -> Exchange:
        """Return the exchange of the turn."""
        failed = self.status == "failed"
        return make_exchange(
            session_id,
            messages=self.messages,
            answers=None if failed else reply(ANSWERS[self.answer]) * self.answers,
            answer_status=self.status,
            resends_history=self.resends_history,
            side_request=self.side_request,
        )


three = st.integers(0, 2)
turns = st.builds(
    Turn,
    system=st.sampled_from(SYSTEMS),
    texts=st.lists(st.tuples(three, three), max_size=3).map(tuple),
    last=three,
    answer=three,
    answers=st.sampled_from((1, 1, 1, 2)),
    status=st.sampled_from(("complete", "complete", "complete", "interrupted", "failed")),
    resends_history=st.booleans(),
    side_request=st.sampled_from((False, False, False, True)),
    trims=st.booleans(),
    # Deliver nothing after it, or all that waits, in one batch or one by one.
    deliver=st.integers(0, 3),
)


def _read(engine: Engine, session_id: str, waiting: list[Exchange], all_ids: set[UUID]) -> dict[str, Any]:
    """Return the conversation, the ids of its current branch, and every message, as they are read now."""
    reader = ConversationReader(DatabaseReads(engine), PendingExchanges(lambda: list(waiting)))
    read = reader.find("local", session_id, BranchQuery(wanted=tuple(sorted(all_ids))))
    assert read is not None
    conversation = read.conversation
    others = [name for name in MESSAGE_COLUMNS if name != "conversation_id"]
    shown = {message.id: message for message in [*read.wanted.values(), *read.messages]}
    return {
        "title": conversation.title,
        "messages": conversation.message_count,
        "updated_at": conversation.updated_at,
        "branch": [message.id for message in read.messages],
        "rows": {key: {name: getattr(each, name) for name in others} for key, each in sorted(shown.items())},
    }


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_turns=st.lists(turns, min_size=1, max_size=7))
def test_pending_turns_are_read_as_they_will_be_stored(engine: Engine, given_turns: list[Turn]) -> None:
    session_id = f"s{len(rows_of(engine, 'SELECT 1 FROM conversations'))}"
    waiting: list[Exchange] = []
    all_ids: set[UUID] = set()
    for turn in given_turns:
        exchange = turn.exchange(session_id)
        all_ids |= set(possible_ids(exchange))
        waiting.append(exchange)
        before = _read(engine, session_id, waiting, all_ids)
        if turn.deliver:
            deliver_batch(engine, waiting, together=turn.deliver == 1)
            waiting = []
            after = _read(engine, session_id, [], all_ids)
            assert after == before
