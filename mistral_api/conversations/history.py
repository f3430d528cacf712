"""The stored history of a session, put before the messages of a request that asks for it (``use_history``).

:class:`SessionHistory` reads the current branch of the session and matches the sent messages with it
(:func:`continue_session`) as the writer will: a client that sends its own history again, all of it or only the last
turns, does not double it. Messages that never got an answer are left out, as ``turn_placement`` leaves them aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from mistral_api.conversations.conversation_reader import BranchRead, ConversationReader
from mistral_api.conversations.items import resolve_references
from mistral_api.conversations.message_alignment import SentMessages, align
from mistral_api.conversations.message_matching import is_system_message, leading_system_messages
from mistral_api.conversations.message_tree import MessageTree, SentAttributes, TreeNode, is_unanswered
from mistral_api.conversations.stored_conversation import BranchQuery
from mistral_api.conversations.stored_message import MessageRecord, prompt_message, row_to_chat_message
from mistral_api.errors import InvalidRequest, Unavailable
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.payload_types.responses import Item
from mistral_api.recording.exchange import Exchange


class SessionHistory:
    """Puts the history of a session before the messages of a request. Safe to use from many threads."""

    def __init__(
        self,
        reader: HistoryReader,
        recordable_messages: Callable[[Sequence[ChatMessage]], list[ChatMessage] | None],
        *,
        always: bool,
    ) -> None:
        """``recordable_messages`` is the recorder's method. ``always`` (the setting SESSION_HISTORY) is for requests
        without ``use_history``."""
        self._reader = reader
        self._recordable_messages = recordable_messages
        self._always = always

    def recall(self, payload: ChatPayload, owner: str) -> ContinuedSession | None:
        """Return a chat request with the history of its session, or None where it does not ask for it.

        Raises InvalidRequest where this server stores no text, and Unavailable where the history cannot be read now.
        """
        if not payload.get("use_history", self._always):
            return None
        sent = payload["messages"]
        recorded = self._recordable_messages(sent)
        if recorded is None:
            raise InvalidRequest(
                "'use_history' needs stored conversations, and this server keeps no text (STORE_CONTENT=false).",
                code="not_supported",
                param="use_history",
            )
        session_id = payload.get("session_id")
        if session_id is None:
            return without_history(sent)
        return self._continue(owner, session_id, sent, recorded)

    def _continue(
        self, owner: str, session_id: str, sent: list[ChatMessage], recorded: list[ChatMessage]
    ) -> ContinuedSession:
        return continue_session(self._reader.branch(owner, session_id), sent, recorded)


@dataclass(frozen=True, slots=True)
class BranchMessage:
    """A stored message: as it was recorded, as the model gets it again, and what was sent with its turn besides."""

    id: UUID
    message: ChatMessage
    prompt: ChatMessage
    sent: SentAttributes | None = None


@dataclass(frozen=True, slots=True)
class SessionBranch:
    """The answered messages of the current branch of a session, oldest first."""

    messages: list[BranchMessage] = field(default_factory=list)

    @property
    def head_id(self) -> UUID | None:
        """The stored message that new ones follow."""
        return self.messages[-1].id if self.messages else None

    @property
    def prompt_messages(self) -> list[ChatMessage]:
        """The messages in OpenAI's chat form, ready for the model."""
        return [each.prompt for each in self.messages]

    def tree(self) -> MessageTree:
        """Return the branch as a tree, with which sent messages can be aligned."""
        tree = MessageTree(UUID(int=0), datetime.now(UTC), self.head_id)
        parent: TreeNode | None = None
        for each in self.messages:
            parent = tree.add_below(parent, each.id, each.message)
        tree.last_answered = parent
        return tree


class HistoryReader:
    """Reads conversations as history. Safe to use from many threads."""

    def __init__(self, reader: ConversationReader) -> None:
        self._reader = reader

    def branch(self, owner: str, session_id: str) -> SessionBranch:
        """Return the current branch of an owner's session. Raises Unavailable where not all of it can be read."""
        read = self._reader.find(owner, session_id, BranchQuery())
        return SessionBranch() if read is None else self._history(read)

    def existing_branch(self, owner: str, session_id: str, param: str) -> SessionBranch:
        """Return the current branch of a session that must be there. Raises NotFound, which names ``param``."""
        return self._history(self._reader.read(owner, session_id, BranchQuery(), param))

    def branch_up_to(self, owner: str, session_id: str, message_id: UUID) -> SessionBranch:
        """Return the branch that ends with a message. Raises Unavailable where not all of it can be read."""
        read = self._reader.find(owner, session_id, BranchQuery(start=message_id))
        return SessionBranch() if read is None else self._history(read)

    def sent_messages(self, exchange: Exchange) -> list[tuple[UUID, ChatMessage]] | None:
        """Return the messages that were sent with a pending exchange, and the ids under which they are stored.

        Return None where PostgreSQL has the exchange meanwhile. Raises Unavailable.
        """
        read = self._reader.find(exchange.owner, exchange.session_id or "", BranchQuery(newest=1))
        ids = read.current.sent_ids.get(exchange.id) if read is not None else None
        if ids is None:
            return None
        pairs = zip(ids, exchange.messages or [], strict=True)
        return [(message_id, message) for message_id, message in pairs if message_id is not None]

    def _history(self, read: BranchRead) -> SessionBranch:
        if not read.current.is_whole:
            # A model that got the end alone would have forgotten the beginning, and nobody would know.
            raise Unavailable(
                "The database does not answer, and may have earlier messages of this conversation.",
                code="database_unavailable",
            )
        answered = (message for message in read.messages if not is_unanswered(message.status, message.role))
        return SessionBranch([_branch_message(message) for message in answered])

    def resolve_references(self, owner: str, items: list[Item], field: str) -> list[Item]:
        """Return the items of a request, with stored ones in the place of references.

        Raises as :func:`mistral_api.conversations.items.resolve_references` does.
        """
        return resolve_references(self._reader, owner, items, field)


@dataclass(frozen=True, slots=True)
class ContinuedSession:
    """A chat request that continues a session.

    The model gets ``leading`` (system messages), ``history`` and ``sent``. Of the sent messages ``new`` are to be
    recorded, after the stored message ``continues``; where that is None, their place is found by the messages that
    they repeat.
    """

    leading: list[ChatMessage]
    sent: list[ChatMessage]
    new: list[ChatMessage]
    history: list[ChatMessage] = field(default_factory=list)
    continues: UUID | None = None


def without_history(sent: Sequence[ChatMessage]) -> ContinuedSession:
    """Return a request that brings every message the model is to get."""
    leading = leading_system_messages(sent)
    return ContinuedSession(leading, list(sent[len(leading) :]), list(sent))


def continue_session(
    branch: SessionBranch, sent: Sequence[ChatMessage], recorded: Sequence[ChatMessage]
) -> ContinuedSession:
    """Return the request that puts a stored branch before the sent messages, without any message twice.

    ``recorded`` are the sent messages as they will be stored, so that large attachments match those of the branch.

    - A list that begins like the branch, up to an answer, is the client's own history: nothing is put before it. So is
      one with answers that fit nowhere, or with a summary in the place of older messages.
    - A list that begins with a later part of the branch, an answer among it, resends the last turns: only the rest is
      new.
    - Any other list is new as a whole.

    Sent system messages replace the stored ones. Without any, the newest stored ones lead.
    """
    messages = SentMessages(recorded)
    if not messages.has_answer:
        return _continue_below(branch, len(branch.messages), sent, 0)
    aligned = align(branch.tree(), messages, resends_history=False)
    if aligned is None or aligned.replaced:
        return without_history(sent)
    stored = [each for each in branch.messages if not is_system_message(each.message)]
    if not stored or stored[0].id in aligned.repeated.values():
        return without_history(sent)
    end = [each.id for each in branch.messages].index(aligned.end.id) + 1
    return _continue_below(branch, end, sent, aligned.last + 1)


def _continue_below(branch: SessionBranch, end: int, sent: Sequence[ChatMessage], first_new: int) -> ContinuedSession:
    """Return the request whose messages from ``first_new`` on follow the first ``end`` messages of a branch."""
    leading = leading_system_messages(sent)
    stored = branch.messages[:end]
    rest = list(sent[max(first_new, len(leading)) :])
    history = [each.prompt for each in stored if not is_system_message(each.message)]
    return ContinuedSession(
        leading or _newest_system_messages(stored),
        rest,
        leading + rest,
        drop_unanswered_calls(history, rest),
        stored[-1].id if stored else None,
    )


def _newest_system_messages(stored: Sequence[BranchMessage]) -> list[ChatMessage]:
    """Return the last system messages that were sent together."""
    newest: list[ChatMessage] = []
    for each, before in zip(stored, [None, *stored], strict=False):
        if each.sent and "system" in each.sent:
            newest = each.sent["system"]
        elif is_system_message(each.message):
            follows = before is not None and is_system_message(before.message)
            newest = [*newest, each.prompt] if follows else [each.prompt]
    return newest


def drop_unanswered_calls(stored: Sequence[ChatMessage], sent: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the stored messages without tool calls that never got a result: abandoned, or cut off in the middle.

    Models are not trained on a chat that continues without the result, and the model server refuses half a call since
    its arguments are no JSON.
    """
    messages = [*stored, *sent]
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"} - {None}
    remaining: list[ChatMessage] = []
    for message, following in zip(stored, [*messages[1:], None], strict=False):
        calls = message.get("tool_calls") or []
        has_result = following is not None and following["role"] == "tool"
        if not calls or has_result or any(call.get("id") in answered for call in calls):
            remaining.append(message)
        elif message.get("content"):
            remaining.append(omit(message, ("tool_calls",)))
    return remaining


def _branch_message(row: MessageRecord) -> BranchMessage:
    message = row_to_chat_message(row)
    return BranchMessage(row.id, message, prompt_message(message), cast("SentAttributes | None", row.sent))
