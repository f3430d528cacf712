"""The tree of messages as other programs export it, and how it becomes a conversation of ours.

A node of a source becomes no message, one, or several in a row: a node that shows nothing is left out, and what
follows it then follows its parent. An answer with tool calls becomes the calls, their results and the text.

- The *session id* is the name of the format and the source's id of the conversation, such as
  ``chatgpt:6b0f0d9c-…``. Where that is no session id, a hash of 128 bits stands for the source's id.
- The *id of a message* is a UUID of version 5 (RFC 9562): a hash of owner, format, conversation, the source's id of
  the message, and its number among the messages that the node became. A later export gives the same ids, by which
  what has been imported is recognised. Two owners, or two programs, never share one.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from mistral_api.conversations.importing.imported import (
    ImportedConversation,
    ImportedMessage,
    MalformedConversation,
)
from mistral_api.conversations.message_matching import is_system_message, system_digest
from mistral_api.conversations.turn_placement import conversation_title
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import replace_nul, without_large_attachments
from mistral_api.wire import valid_session_id

# Of the ids of imported messages. It was drawn at random, and can never change.
_NAMESPACE = UUID("5b0c1ce6-6d0b-4f5e-9a1f-1f4d8c3b7a52")
_ID_LENGTH = 512
# As long as a title that a client sets may be.
_TITLE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ImportTarget:
    """Who gets the conversations. Attachments with more base64 than ``max_attachment_bytes`` become hash and length."""

    owner: str
    max_attachment_bytes: int


@dataclass(slots=True, kw_only=True)
class SourceNode:
    """One node of a source's tree: its id and its parent's id there, and the messages that it becomes.

    ``reasoning`` is what the model thought before the answer that follows in another node. ``model`` and the tokens
    are those of the node's answers.
    """

    key: str
    parent: str | None
    messages: list[ChatMessage] = field(default_factory=list)
    reasoning: str | None = None
    created_at: datetime | None = None
    status: str = "complete"
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConversation:
    """One conversation of another program. ``current`` is the node at the end of the branch that it shows."""

    format: str
    id: str
    title: str | None
    created_at: datetime | None
    updated_at: datetime | None
    nodes: Sequence[SourceNode]
    current: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the children of a node go: below this message, with this reasoning in front of their answer."""

    message_id: UUID | None = None
    reasoning: str | None = None
    time: datetime | None = None


def imported_conversation(source: SourceConversation, target: ImportTarget) -> ImportedConversation:
    """Return a conversation of another program as ours. Raises MalformedConversation."""
    builder = _Builder(source, target)
    for node in _parents_first(source):
        builder.add(node)
    return builder.conversation()


class _Builder:
    def __init__(self, source: SourceConversation, target: ImportTarget) -> None:
        self._source = source
        self._target = target
        self._start = _first_time(source)
        self._places: dict[str, _Place] = {}
        self._messages: list[ImportedMessage] = []
        self._parents = {node.parent for node in source.nodes}
        # The system messages in force at each message, and which messages are system messages.
        self._systems: dict[UUID | None, list[ChatMessage]] = {None: []}
        self._system_ids: set[UUID | None] = set()

    def add(self, node: SourceNode) -> None:
        """Add the messages of a node whose parent has been added."""
        above = self._places.get(node.parent or "", _Place())
        time = node.created_at or above.time or self._start
        reasoning = "\n\n".join(filter(None, (above.reasoning, node.reasoning))) or None
        messages = self._with_stopped_answer(node) if reasoning else list(node.messages)
        if reasoning and messages and messages[0]["role"] == "assistant":
            messages[0] = _with_reasoning(messages[0], reasoning)
            reasoning = None
        last = above.message_id
        for number, message in enumerate(self._storable(messages)):
            last = self._append(node, message, last, number, time)
        self._places[node.key] = _Place(last, reasoning, time)

    def _with_stopped_answer(self, node: SourceNode) -> list[ChatMessage]:
        """Return the messages of a node behind reasoning, with an empty answer where the model was stopped there."""
        ends = not node.messages and node.key not in self._parents
        stopped = ends or (node.messages and node.messages[0]["role"] == "user")
        answer: list[ChatMessage] = [{"role": "assistant", "content": None}] if stopped else []
        return [*answer, *node.messages]

    def _storable(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        return replace_nul(without_large_attachments(messages, self._target.max_attachment_bytes))

    def _append(self, node: SourceNode, message: ChatMessage, parent: UUID | None, number: int, time: datetime) -> UUID:
        answer = message["role"] == "assistant"
        counted = answer and number == len(node.messages) - 1
        message_id = self._message_id(node.key, number)
        imported = ImportedMessage(
            id=message_id,
            parent_id=parent,
            message=message,
            created_at=time,
            request_id=f"import:{self._source.format}",
            status=node.status if answer else "complete",
            model=_without_nul(node.model) if answer else None,
            prompt_tokens=node.prompt_tokens if counted else None,
            completion_tokens=node.completion_tokens if counted else None,
            framing=self._framing(message_id, parent, message),
        )
        self._messages.append(imported)
        return message_id

    def _framing(self, message_id: UUID, parent: UUID | None, message: ChatMessage) -> UUID | None:
        """Return the digest of the system messages in force: the last ones that follow one another."""
        systems = self._systems[parent]
        if is_system_message(message):
            systems = [*systems, message] if parent in self._system_ids else [message]
            self._system_ids.add(message_id)
        self._systems[message_id] = systems
        return UUID(system_digest(systems)) if systems else None

    def _message_id(self, key: str, number: int) -> UUID:
        names = (self._target.owner, self._source.format, self._source.id, key, str(number))
        return uuid5(_NAMESPACE, "\n".join(f"{len(name)} {name}" for name in names))

    def conversation(self) -> ImportedConversation:
        """Return the conversation with all messages that were added. Raises MalformedConversation without any."""
        if not self._messages:
            raise MalformedConversation("has no message that shows anything")
        source = self._source
        times = [message.created_at for message in self._messages]
        return ImportedConversation(
            owner=self._target.owner,
            session_id=import_session_id(source.format, source.id),
            title=self._title(),
            metadata={"source": source.format, "source_id": replace_nul(source.id[:_ID_LENGTH])},
            created_at=source.created_at or min(times),
            updated_at=source.updated_at or max(times),
            messages=self._messages,
            head_id=self._head(),
        )

    def _title(self) -> str | None:
        title = " ".join((_without_nul(self._source.title) or "").split())[:_TITLE_LENGTH]
        return title or conversation_title([each.message for each in self._messages])

    def _head(self) -> UUID:
        """Return the last message of the current branch; where the source does not say which, the newest of all."""
        current = self._places.get(self._source.current or "", _Place()).message_id
        newest = max(enumerate(self._messages), key=lambda pair: (pair[1].created_at, pair[0]))[1].id
        return current or newest


def _parents_first(source: SourceConversation) -> Iterator[SourceNode]:
    """Yield the nodes, each after its parent, otherwise by time. Raises MalformedConversation for a circle.

    A node whose parent is not there begins a branch.
    """
    keys = {node.key for node in source.nodes}
    children: dict[str | None, list[tuple[int, SourceNode]]] = defaultdict(list)
    for index, node in enumerate(source.nodes):
        children[node.parent if node.parent in keys else None].append((index, node))
    start = _first_time(source)
    heap = [(node.created_at or start, index, node) for index, node in children[None]]
    heapq.heapify(heap)
    number = 0
    while heap:
        time, _, node = heapq.heappop(heap)
        yield node
        number += 1
        for index, child in children[node.key]:
            heapq.heappush(heap, (child.created_at or time, index, child))
    if number < len(source.nodes):
        raise MalformedConversation("has messages that follow each other in a circle, or share an id")


def _first_time(source: SourceConversation) -> datetime:
    """Return a time for nodes without one. Raises MalformedConversation where the source has no time at all."""
    times = [node.created_at for node in source.nodes if node.created_at]
    first = source.created_at or (min(times) if times else source.updated_at)
    if first is None:
        raise MalformedConversation("says nowhere when it was held")
    return first


def _with_reasoning(message: ChatMessage, reasoning: str) -> ChatMessage:
    own = message.get("reasoning_content")
    return {**message, "reasoning_content": f"{reasoning}\n\n{own}" if own else reasoning}


def _without_nul(text: str | None) -> str | None:
    return None if text is None else replace_nul(text)


def import_session_id(format_name: str, source_id: str) -> str:
    """Return the session id of a conversation that another program knows under ``source_id``."""
    session_id = f"{format_name}:{source_id}"
    if valid_session_id(session_id):
        return session_id
    return f"{format_name}:{short_hash(source_id)}"


def short_hash(*texts: str) -> str:
    """Return a hash of 128 bits as 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(texts).encode("utf-8", "replace"), digest_size=16).hexdigest()
