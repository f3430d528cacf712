"""The message tree of a conversation, as far as it must be known to append new turns.

A message follows its parent (``messages.parent_id``); the head of the conversation (``conversations.head_id``) is the
newest message of the current branch. A client that edits an earlier message starts another branch there.

``turn_placement`` decides where a turn goes, ``message_tree_store`` reads and writes the trees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from mistral_api.conversations.message_alignment import StoredNode
from mistral_api.conversations.message_matching import NO_DIGEST, message_digest, normalized_text
from mistral_api.conversations.stored_message import MessageColumns, chat_message_to_columns
from mistral_api.payload_types.chat import ChatMessage

# The digest in the database of a message that has none: all of them are found by it.
_STORED_NO_DIGEST = UUID(int=0)


class SentAttributes(TypedDict, total=False):
    """What a client sent with a turn besides its new messages (``messages.sent`` of the first of them).

    ``system``: system messages, where they are others than before. ``summary``: messages that stand in the place of
    stored ones, where they are others than before. ``answer``: the answer that the turn follows, where the client
    sent it back with another text than was stored.
    """

    system: list[ChatMessage]
    summary: list[ChatMessage]
    answer: ChatMessage


class RowFields(TypedDict):
    """The columns of a new message that its turn gives it."""

    sent: SentAttributes | None
    status: str
    request_id: str
    created_at: datetime
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class NewMessageRow(MessageColumns, RowFields):
    """A row to insert into ``messages``.

    Digest and depth are null where they are to be found when the conversation is written to the next time.
    """

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    digest: UUID | None
    depth: int | None
    framing: UUID | None


class NewDigest(TypedDict):
    """The digest and the depth of a stored message that had none."""

    id: UUID
    digest: UUID
    depth: int


@dataclass(slots=True, kw_only=True)
class TreeNode:
    """A message of the tree, as far as it is needed to append others below it.

    ``digest`` is empty for a message that takes no part in matching. ``depth`` counts the messages with a digest above
    it; -1 for what has none, and nothing with one above it. ``framing`` is the digest of the system messages and of
    the summary that are in force here. An ``unanswered`` message belongs to a request that failed or was interrupted
    before there was an answer. ``message`` is there where its text is needed.
    """

    id: UUID
    parent_id: UUID | None
    role: str
    digest: str
    depth: int
    framing: str | None = None
    sequence: int = 0
    unanswered: bool = False
    interrupted: bool = False
    message: ChatMessage | None = None


@dataclass(slots=True)
class MessageTree:
    """One conversation while turns are appended to it.

    It holds the stored messages that the turns may repeat or continue, and those without a digest.
    ``last_answered`` is the newest message of the current branch that is not unanswered. ``rows`` are to be inserted;
    ``newly_answered`` are stored messages that are unanswered no longer, ``new_digests`` those of stored messages that
    had none.
    """

    conversation_id: UUID
    updated_at: datetime
    head_id: UUID | None = None
    has_stored_messages: bool = False
    last_answered: TreeNode | None = None
    nodes: dict[UUID, TreeNode] = field(default_factory=dict)
    rows: list[NewMessageRow] = field(default_factory=list)
    newly_answered: list[UUID] = field(default_factory=list)
    new_digests: list[NewDigest] = field(default_factory=list)
    _by_digest: defaultdict[str, list[TreeNode]] = field(default_factory=lambda: defaultdict(list))
    _children: defaultdict[tuple[UUID | None, str], list[TreeNode]] = field(default_factory=lambda: defaultdict(list))
    _below: defaultdict[UUID | None, list[TreeNode]] = field(default_factory=lambda: defaultdict(list))
    _sequence: int = 0

    def add_node(self, node: TreeNode) -> None:
        """Add a stored message. Those above it are added before."""
        if node.id in self.nodes:
            return
        self.nodes[node.id] = node
        self._below[node.parent_id].append(node)
        self._sequence = max(self._sequence, node.sequence)
        if node.digest:
            self._by_digest[node.digest].append(node)
            self._children[self.parent_of(node), node.digest].append(node)

    def add_undigested(self, node: TreeNode, parent_depth: int | None) -> None:
        """Add a message that was stored before there were digests; the depth of its parent, where that has one."""
        parent = self.nodes.get(node.parent_id) if node.parent_id else None
        node.depth = depth_below(parent.depth if parent is not None else parent_depth, node.digest)
        self.add_node(node)
        self.new_digests.append({"id": node.id, "digest": stored_digest(node.digest), "depth": node.depth})

    def find_last_answered(self) -> None:
        """Find the last answered message of the current branch, once all stored messages are added."""
        head = self.nodes.get(self.head_id) if self.head_id else None
        self.last_answered = next((node for node in self.upwards(head) if not node.unanswered), None)

    def upwards(self, node: TreeNode | None) -> Iterator[TreeNode]:
        """Yield a message and those above it, as far as they are known."""
        while node is not None:
            yield node
            node = self.nodes.get(node.parent_id) if node.parent_id else None

    def below(self, parent: UUID | None) -> Sequence[TreeNode]:
        """Return the known messages below one, or at the root."""
        return self._below.get(parent, ())

    def set_head(self, node: TreeNode | None) -> None:
        """Let the current branch end with a message."""
        self.head_id = node.id if node is not None else None
        # As it will be read again: see find_last_answered.
        self.find_last_answered()

    def mark_answered(self, message_id: UUID) -> None:
        """Note that an unanswered message did get an answer."""
        node = self.nodes[message_id]
        if node.unanswered:
            node.unanswered = False
            self.newly_answered.append(node.id)

    def add_below(self, parent: TreeNode | None, message_id: UUID, message: ChatMessage) -> TreeNode:
        """Add a stored message that is known as a whole, and return it."""
        digest = message_digest(message)
        node = TreeNode(
            id=message_id,
            parent_id=parent.id if parent else None,
            role=message["role"],
            digest=digest,
            depth=depth_below(parent.depth if parent else None, digest),
            sequence=self._sequence + 1,
            message=message,
        )
        self.add_node(node)
        return node

    def add_row(self, node: TreeNode, row: RowFields) -> None:
        """Add a new message, which is to be inserted."""
        assert node.message is not None  # noqa: S101 - a new message has its text
        # The newest of all, as it will be when it is read again: of messages that are the same the newest counts.
        node.sequence = self._sequence + 1
        self.add_node(node)
        self.rows.append(
            {
                "id": node.id,
                "conversation_id": self.conversation_id,
                "parent_id": node.parent_id,
                **chat_message_to_columns(node.message),
                "digest": stored_digest(node.digest),
                "depth": node.depth,
                "framing": UUID(node.framing) if node.framing else None,
                **row,
            }
        )

    def nodes_with(self, digest: str) -> Sequence[StoredNode]:
        """Return the messages with a digest."""
        return self._by_digest.get(digest, ())

    def children_with(self, parent: UUID | None, digest: str) -> Sequence[StoredNode]:
        """Return the messages with a digest below another one, or at the root."""
        return self._children.get((parent, digest), ())

    def parent_of(self, node: StoredNode) -> UUID | None:
        """Return the nearest message with a digest above another one, None above the first."""
        parent_id = self.nodes[node.id].parent_id
        while parent_id is not None and (parent := self.nodes.get(parent_id)) is not None and not parent.digest:
            parent_id = parent.parent_id
        return parent_id

    def cut_answer_below(self, parent: UUID, text: str) -> StoredNode | None:
        """Return the interrupted answer below a message that begins as the text does, or that the text begins as."""
        for node in self._below.get(parent, ()):
            if node.interrupted and node.message is not None:
                stored = normalized_text(node.message)
                if text and stored and (text.startswith(stored) or stored.startswith(text)):
                    return node
        return None

    def is_end(self, node: StoredNode) -> bool:
        """Return whether the current branch ends with a message, apart from what never got an answer."""
        return self.last_answered is not None and node.id == self.last_answered.id

    def is_question_at_end(self, node: StoredNode) -> bool:
        """Return whether a message stands right above the end of the current branch."""
        return self.last_answered is not None and self.parent_of(self.last_answered) == node.id


def stored_digest(digest: str) -> UUID:
    """Return a digest as the column ``messages.digest`` holds it."""
    return UUID(digest) if digest else _STORED_NO_DIGEST


def read_digest(stored: UUID) -> str:
    """Return a digest from the column ``messages.digest``."""
    return NO_DIGEST if stored == _STORED_NO_DIGEST else stored.hex


def depth_below(parent_depth: int | None, digest: str) -> int:
    """Return the depth of a message below another one, whose depth is None where there is none."""
    above = -1 if parent_depth is None else parent_depth
    return above + 1 if digest else above


def is_unanswered(status: str, role: str) -> bool:
    """Return whether a message of this status never got an answer."""
    return status == "failed" or (status == "interrupted" and role != "assistant")
