"""Dialogues as clients hold them: each sends its whole history, and appends the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from mistral_api.conversations.recognition import RecognitionIndex
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_session_id
from tests.support.exchanges import make_exchange, reply


def said(*texts: str) -> list[ChatMessage]:
    """Return messages of user and assistant in turn, the user first."""
    return [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]


@dataclass
class Dialogue:
    """What one client knows of a conversation: its messages, and nothing of the session."""

    owner: str = "local"
    client: str | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    def turn(self, index: RecognitionIndex, question: str, answer: str) -> str:
        """Send the history with a question, and append both. Return the session in which this was recorded."""
        self.messages.append({"role": "user", "content": question})
        session_id = take_turn(index, self.messages, answer, self.owner, self.client)
        self.messages.append({"role": "assistant", "content": answer})
        self.sessions.append(session_id)
        return session_id


def take_turn(
    index: RecognitionIndex,
    messages: list[ChatMessage],
    answer: str,
    owner: str = "local",
    client: str | None = None,
    status: str = "complete",
) -> str:
    """Answer a list of messages in the conversation that is recognised, or in a new one. Return its session id."""
    exchange = begin_turn(index, messages, owner, client)
    end_turn(index, exchange, answer, client, status)
    return exchange.session_id or ""


def begin_turn(
    index: RecognitionIndex, messages: list[ChatMessage], owner: str = "local", client: str | None = None
) -> Exchange:
    """Return the exchange of a list of messages in the conversation that is recognised, or in a new one."""
    exchange = make_exchange(owner=owner, messages=list(messages))
    match = index.find_and_claim(owner, client, messages, exchange.id)
    exchange.session_id = match.session_id if match else new_session_id()
    return exchange


def end_turn(
    index: RecognitionIndex, exchange: Exchange, answer: str | None, client: str | None = None, status: str = "complete"
) -> None:
    """End an exchange with an answer, None for a failure."""
    exchange.client = client
    exchange.answers = None if answer is None else reply(answer)
    exchange.answer_status = status if answer is not None else "failed"
    index.note(exchange)
