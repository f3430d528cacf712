"""A conversation of an export, as it is stored: its messages with their ids, parents first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from mistral_api.conversations.message_tree import SentAttributes
from mistral_api.payload_types.chat import ChatMessage

STATUSES = ("complete", "interrupted", "failed")


class MalformedConversation(Exception):
    """A conversation of an export cannot be read or stored. The message is the predicate of a sentence about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMessage:
    """One message: the columns of ``messages`` that an export knows. ``parent_id`` is null for the first message.

    ``framing`` is the digest of the system messages in force.
    """

    id: UUID
    parent_id: UUID | None
    message: ChatMessage
    created_at: datetime
    request_id: str
    status: str = "complete"
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    sent: SentAttributes | None = None
    framing: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedConversation:
    """One conversation. A message stands behind its parent; ``head_id`` is the end of the current branch."""

    owner: str
    session_id: str
    title: str | None
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    messages: list[ImportedMessage]
    head_id: UUID | None

    @property
    def key(self) -> tuple[str, str]:
        """The owner and the session id, which no two stored conversations share."""
        return self.owner, self.session_id

    @property
    def characters(self) -> int:
        """About how much text the messages hold: what they cost in memory, and on their way to PostgreSQL."""
        return sum(_characters(each.message.get("content")) + 500 for each in self.messages)


def _characters(value: object) -> int:
    """Return the length of all strings in a JSON value, however deep it nests."""
    number, stack = 0, [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str):
            number += len(each)
        elif isinstance(each, dict | list):
            stack += each.values() if isinstance(each, dict) else each
    return number
