"""The message tree of a conversation: new turns are appended to the branch that they continue.

A message follows its parent (``messages.parent_id``); the head of the conversation (``conversations.head_id``) is the
newest message of the current branch. A client that edits an earlier message starts another branch there.

:meth:`MessageTree.append` decides in memory where a turn goes. ``message_tree_store`` reads and writes the trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mistral_api.conversations.message_matching import (
    extend_chain,
    message_digest,
    repeated_system_length,
    shared_prefix_length,
)
from mistral_api.conversations.search_text import SearchColumns, search_columns, searchable_text
from mistral_api.conversations.stored_message import MessageColumns, assistant_message, chat_message_to_columns
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.system.identifiers import new_id

TITLE_LENGTH = 80


class NewMessageRow(MessageColumns, SearchColumns):
    """A row to insert into ``messages``."""

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    chain: str
    status: str
    request_id: str
    created_at: datetime
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """The messages of one request, and the answers to them.

    ``status`` is that of the answers: ``complete``, ``interrupted`` or ``failed``. ``continues`` is the stored message
    that the messages follow, where it is known. ``message_ids`` and ``answer_id`` are there where ids were given out
    beforehand; ``answer_id`` is that of the first answer.
    """

    messages: Sequence[ChatMessage]
    request_id: str
    created_at: datetime
    ended_at: datetime
    status: str = "complete"
    answers: Sequence[GeneratedMessage] = ()
    continues: UUID | None = None
    message_ids: Sequence[UUID] | None = None
    answer_id: UUID | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(slots=True)
class TreeNode:
    """A message of the tree, as far as it is needed to append others below it.

    An ``unanswered`` message belongs to a request that failed or was interrupted before there was an answer.
    """

    id: UUID
    chain: str
    unanswered: bool = False


@dataclass(slots=True)
class MessageTree:
    """One conversation while turns are appended to it.

    ``last_answered`` is the newest message of the current branch that is not unanswered. ``by_chain`` has the stored
    messages that the turns repeat, ``by_id`` those that the turns say they continue. ``rows`` are to be
    inserted; ``newly_answered`` are stored messages that are unanswered no longer.
    """

    conversation_id: UUID
    updated_at: datetime
    last_answered: TreeNode | None = None
    head_id: UUID | None = None
    by_chain: dict[str, TreeNode] = field(default_factory=dict)
    by_id: dict[UUID, TreeNode] = field(default_factory=dict)
    rows: list[NewMessageRow] = field(default_factory=list)
    newly_answered: list[UUID] = field(default_factory=list)

    def append(self, turn: NewTurn, chains: Sequence[str]) -> None:
        """Append the new messages and the answers of a turn; ``chains`` are those of its messages.

        The first answer becomes the head. Other answers (``n``) are its siblings.
        """
        parent, messages = self._place(turn, chains)
        status = "complete" if turn.answers else turn.status
        ids = turn.message_ids or [new_id() for _ in messages]
        for message_id, message in zip(ids, messages, strict=True):
            parent = self._add(turn, parent, message, status, message_id)
        self.head_id = parent.id if parent else None
        answers = [
            self._add_answer(turn, parent, answer, turn.answer_id if number == 0 else None)
            for number, answer in enumerate(turn.answers)
        ]
        if answers:
            # The tokens of all answers are counted with the first.
            first = self.rows[-len(answers)]
            first["prompt_tokens"], first["completion_tokens"] = turn.prompt_tokens, turn.completion_tokens
            self.head_id, self.last_answered = answers[0].id, answers[0]
        elif status == "complete":
            self.last_answered = parent
        self.updated_at = max(self.updated_at, turn.ended_at)

    def _place(self, turn: NewTurn, chains: Sequence[str]) -> tuple[TreeNode | None, Sequence[ChatMessage]]:
        """Return the message below which a turn goes, None for the root, and which of its messages are new.

        - A turn that says what it continues, or has ids for its messages already, is new as a whole.
        - A list that repeats stored messages up to an answer goes below the last one of these; the rest is new.
        - Any other list goes below the last answered message; system messages that it repeats are not stored again.
          Messages after the last answered one never got an answer. They stay behind as a side branch.
        """
        sent = turn.messages
        continued = self.by_id.get(turn.continues) if turn.continues else None
        if continued is not None or turn.message_ids:
            return continued or self.last_answered, sent
        roles = [message.get("role") for message in sent]
        shared = shared_prefix_length(chains, roles, self.by_chain)
        if shared:
            self._mark_answered(chains[:shared])
            return self.by_chain[chains[shared - 1]], sent[shared:]
        return self.last_answered, sent[repeated_system_length(chains, roles, self.by_chain) :]

    def _mark_answered(self, chains: Sequence[str]) -> None:
        """Note that unanswered messages did get an answer: the client sends them again, with the answer behind them."""
        nodes = (self.by_chain.get(chain) for chain in chains)
        self.newly_answered += [node.id for node in nodes if node is not None and node.unanswered]

    def _add_answer(
        self, turn: NewTurn, parent: TreeNode | None, answer: GeneratedMessage, answer_id: UUID | None
    ) -> TreeNode:
        message = assistant_message(answer)
        node = self._add(turn, parent, message, turn.status, answer_id or new_id())
        self.rows[-1]["created_at"], self.rows[-1]["model"] = turn.ended_at, turn.model
        return node

    def _add(
        self, turn: NewTurn, parent: TreeNode | None, message: ChatMessage, status: str, message_id: UUID
    ) -> TreeNode:
        chain = extend_chain(parent.chain if parent else "", message_digest(message))
        unanswered = status == "failed" or (status == "interrupted" and message.get("role") != "assistant")
        node = self.by_chain[chain] = self.by_id[message_id] = TreeNode(message_id, chain, unanswered)
        self.rows.append(
            {
                "id": node.id,
                "conversation_id": self.conversation_id,
                "parent_id": parent.id if parent else None,
                **chat_message_to_columns(message),
                "chain": node.chain,
                **search_columns(searchable_text(message.get("content"))),
                "status": status,
                "request_id": turn.request_id,
                "created_at": turn.created_at,
                "model": None,
                "prompt_tokens": None,
                "completion_tokens": None,
            }
        )
        return node


def conversation_title(messages: Sequence[ChatMessage]) -> str | None:
    """Return the beginning of the user's first text."""
    for message in messages:
        words = searchable_text(message.get("content")) if message.get("role") == "user" else None
        if words and words.strip():
            return " ".join(words.split())[:TITLE_LENGTH]
    return None
