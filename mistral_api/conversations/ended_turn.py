"""What is remembered of an exchange that has ended, besides the messages that its client sent (``recognition``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from mistral_api.conversations.digest_tree import Answer, AnswerText, node_digest
from mistral_api.conversations.stored_message import assistant_message
from mistral_api.recording.exchange import INTERRUPTED, Exchange, belongs_to_conversation

# An answer as JSON has it: digest, whether it is distinctive and ordinary, and of one that was cut off its beginning
# and its length.
AnswerJson = tuple[str, bool, bool, str | None, int]
TurnJson = tuple[str, str, str, str | None, float, bool, list[AnswerJson]]


@dataclass(slots=True)
class EndedTurn:
    """A turn that was answered.

    ``used_at``: when it ended, in Unix seconds. ``follows_known``: the messages follow one whose id the client named.
    ``answers``: the digest of each answer, and how it is found.
    """

    exchange_id: UUID
    owner: str
    session_id: str
    client: str | None
    used_at: float
    follows_known: bool
    answers: list[tuple[bytes, Answer]]

    @classmethod
    def of(cls, exchange: Exchange) -> EndedTurn | None:
        """Return the turn of an exchange; None where nothing of it is remembered.

        That is without an answer or a conversation, and for a side request, which nobody continues.
        """
        if not belongs_to_conversation(exchange) or not exchange.answers or exchange.side_request:
            return None
        was_cut, answers = exchange.answer_status == INTERRUPTED, []
        for answer in exchange.answers:
            message = assistant_message(answer)
            answers.append((node_digest(message), Answer.of(message, was_cut=was_cut)))
        return cls(
            exchange.id,
            exchange.owner,
            exchange.session_id or "",
            exchange.client,
            (exchange.created_at + timedelta(milliseconds=exchange.latency_ms)).timestamp(),
            exchange.continues is not None,
            answers,
        )

    def to_json(self) -> TurnJson:
        """Return what :meth:`from_json` takes."""
        answers = [_answer_to_json(*answer) for answer in self.answers]
        return (
            self.exchange_id.hex,
            self.owner,
            self.session_id,
            self.client,
            self.used_at,
            self.follows_known,
            answers,
        )

    @classmethod
    def from_json(cls, value: TurnJson) -> EndedTurn:
        """Return the turn that another process has sent."""
        exchange_id, owner, session_id, client, used_at, follows_known, answers = value
        known = [_answer_from_json(*answer) for answer in answers]
        return cls(UUID(exchange_id), owner, session_id, client, used_at, follows_known, known)


def _answer_to_json(digest: bytes, answer: Answer) -> AnswerJson:
    beginning, length = (None, 0) if answer.cut is None else (answer.cut.beginning, answer.cut.length)
    return digest.hex(), answer.distinctive, answer.ordinary, beginning, length


def _answer_from_json(
    digest: str, distinctive: bool, ordinary: bool, beginning: str | None, length: int
) -> tuple[bytes, Answer]:
    cut = None if beginning is None else AnswerText(beginning, length)
    return bytes.fromhex(digest), Answer(distinctive, ordinary, cut)
