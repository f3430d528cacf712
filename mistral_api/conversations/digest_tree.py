"""A conversation as digests: as much of its message tree in memory as it takes to recognise it.

A :class:`DigestNode` stands for a message: it has the message's digest (``message_matching``) and its parent. Messages
without a digest (system messages, empty answers) have no node, so that they make no difference. An
:class:`AnswerLookup` finds the nodes of answers by what a client sends of them.

A *distinctive* answer (``message_alignment``) says so much that its digest is enough to find it. Any other answer is
found only together with the message before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mistral_api.conversations.message_alignment import is_distinctive
from mistral_api.conversations.message_matching import NO_DIGEST, message_digest, normalized_text
from mistral_api.payload_types.chat import ChatMessage

# How much of the text of an answer that was cut off is compared.
CUT_TEXT_CHARACTERS = 500
# A client may have received more of an answer than was recorded when its process died. Checkpoints are written twice a
# second, which is a few hundred characters of a fast model.
MOST_UNRECORDED_CHARACTERS = 2000


class AnswerText:
    """The text of an answer, as far as it is compared: its beginning, and its length in characters."""

    __slots__ = ("beginning", "length")

    def __init__(self, beginning: str, length: int) -> None:
        self.beginning, self.length = beginning, length

    @classmethod
    def of(cls, text: str) -> AnswerText:
        """Return what is compared of a text."""
        return cls(text[:CUT_TEXT_CHARACTERS], len(text))

    def is_of(self, sent: AnswerText) -> bool:
        """Return whether this is an answer that was cut off, and ``sent`` what its client has: more of it or less."""
        shorter = min(len(sent.beginning), len(self.beginning))
        if not shorter or sent.length > self.length + MOST_UNRECORDED_CHARACTERS:
            return False
        return sent.beginning[:shorter] == self.beginning[:shorter]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that this server generated, as far as it matters for finding it.

    ``distinctive`` and ``ordinary``: whether it is found by its digest alone, and with the message before it; both
    where that is not known. ``cut`` is there for an answer that was cut off.
    """

    distinctive: bool
    ordinary: bool
    cut: AnswerText | None = None

    @classmethod
    def of(cls, message: ChatMessage, *, was_cut: bool = False) -> Answer:
        """Return what matters of an assistant's message."""
        distinctive = is_distinctive(message)
        if was_cut:
            return cls(distinctive, not distinctive, AnswerText.of(normalized_text(message)))
        return DISTINCTIVE_ANSWER if distinctive else ORDINARY_ANSWER


# There are many answers, and nearly all are one of these.
DISTINCTIVE_ANSWER, ORDINARY_ANSWER = Answer(distinctive=True, ordinary=False), Answer(distinctive=False, ordinary=True)


class DigestNode:
    """A message of a conversation.

    ``answer`` is there for a message that this server generated. ``continuations`` counts the messages that follow it,
    and the running requests that are about to add one.
    """

    __slots__ = ("answer", "continuations", "digest", "parent", "tree")

    def __init__(
        self, tree: DigestTree, parent: DigestNode | None, digest: bytes, answer: Answer | None = None
    ) -> None:
        self.tree, self.parent, self.digest, self.answer = tree, parent, digest, answer
        self.continuations = 0

    @property
    def cut(self) -> AnswerText | None:
        """The text of an answer that was cut off."""
        return self.answer.cut if self.answer is not None else None

    @property
    def keys(self) -> list[bytes]:
        """Every key under which it is found."""
        before = self.parent.digest if self.parent is not None else b""
        return [] if self.answer is None else _keys(self.digest, before, self.answer)

    @property
    def size(self) -> int:
        """What it takes of the memory, in messages of the usual size."""
        return 1 if self.cut is None else 1 + len(self.cut.beginning) // 100


def _keys(digest: bytes, before: bytes, answer: Answer) -> list[bytes]:
    keys = [digest] if answer.distinctive else []
    if answer.ordinary:
        keys.append(ordinary_key(digest, before))
    if answer.cut is not None and before:
        keys.append(cut_key(before))
    return keys


class DigestTree:
    """The nodes of one conversation. ``client`` is the client that used it last, ``used_at`` when (Unix seconds)."""

    __slots__ = ("client", "last_answer", "nodes", "owner", "session_id", "used_at")

    def __init__(self, owner: str, session_id: str) -> None:
        self.owner, self.session_id = owner, session_id
        self.client: str | None = None
        self.used_at = 0.0
        self.nodes: list[DigestNode] = []
        self.last_answer: DigestNode | None = None

    def descend(
        self, parent: DigestNode | None, sent: SentDigests, start: int, most: int
    ) -> tuple[DigestNode | None, list[bytes]]:
        """Follow a list from a position on below ``parent`` (None: the root), as far as it is known.

        Return the last message that is known, and the digests of the others, of long lists the last ``most``.
        """
        for position in range(start, len(sent)):
            if not sent.digest(position):
                continue
            child = self._child(parent, sent, position)
            if child is None:
                # Of a long list no more is hashed than is remembered.
                new = list(islice(sent.digests_before(len(sent), position), most + 1))
                return (parent if len(new) <= most else None), new[most - 1 :: -1]
            parent = child
        return parent, []

    def _child(self, parent: DigestNode | None, sent: SentDigests, position: int) -> DigestNode | None:
        """Return the newest message below ``parent`` that a sent one repeats, if any does."""
        if parent is not None and not parent.continuations:
            return None
        nodes = (node for node in reversed(self.nodes) if node.parent is parent)
        return next((node for node in nodes if sent.repeats(position, node)), None)


class SentDigests(ABC):
    """A list of messages that a client sent, as digests."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many messages there are."""

    @property
    @abstractmethod
    def has_answer(self) -> bool:
        """Whether an assistant's message is among them."""

    @abstractmethod
    def answer_positions(self, most: int) -> Iterator[int]:
        """Yield the positions of answers that say something, the last one first, at most ``most`` of them."""

    @abstractmethod
    def digest(self, position: int | None) -> bytes:
        """Return the digest of a message, empty for one without, and for no message."""

    @abstractmethod
    def is_answer(self, position: int) -> bool:
        """Return whether a message is an answer that says something."""

    @abstractmethod
    def is_distinctive(self, position: int) -> bool:
        """Return whether an answer is found by its digest alone."""

    @abstractmethod
    def text(self, position: int) -> AnswerText:
        """Return what is compared of the text of an answer."""

    def digests_before(self, end: int, first: int) -> Iterator[bytes]:
        """Yield the digests of the messages from ``first`` up to ``end``, the last one first."""
        return (digest for position in range(end - 1, first - 1, -1) if (digest := self.digest(position)))

    def before(self, position: int) -> int | None:
        """Return the position of the message before, None for the first one. Messages without a digest do not count."""
        return next((number for number in range(position - 1, -1, -1) if self.digest(number)), None)

    def answer_key(self, position: int) -> bytes:
        """Return the key under which the same answer of ours would be found."""
        digest = self.digest(position)
        return digest if self.is_distinctive(position) else ordinary_key(digest, self.digest_before(position))

    def digest_before(self, position: int) -> bytes:
        """Return the digest of the message before, empty for the first one."""
        return self.digest(self.before(position))

    def repeats(self, position: int, node: DigestNode) -> bool:
        """Return whether a message is the one that a node stands for."""
        if self.digest(position) == node.digest:
            return True
        return node.cut is not None and self.is_answer(position) and node.cut.is_of(self.text(position))


class MessageDigests(SentDigests):
    """The digests of messages that are here. Each is computed when it is first needed."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._messages = messages
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def has_answer(self) -> bool:
        """Whether an assistant's message is among them."""
        return has_answer(self._messages)

    def answer_positions(self, most: int) -> Iterator[int]:
        """Yield the positions of the last answers."""
        positions = (number for number in range(len(self._messages) - 1, -1, -1) if self.is_answer(number))
        return islice(positions, most)

    def digest(self, position: int | None) -> bytes:
        """Return a digest, computed now if need be."""
        if position is None:
            return b""
        digest = self._digests.get(position)
        if digest is None:
            digest = self._digests[position] = node_digest(self._messages[position])
        return digest

    def is_answer(self, position: int) -> bool:
        """Return whether a message is an answer with a digest."""
        return self._messages[position].get("role") == "assistant" and bool(self.digest(position))

    def is_distinctive(self, position: int) -> bool:
        """Return whether an answer is distinctive."""
        return is_distinctive(self._messages[position])

    def text(self, position: int) -> AnswerText:
        """Return a text in the form in which texts are compared."""
        return AnswerText.of(normalized_text(self._messages[position]))


def has_answer(messages: Sequence[ChatMessage]) -> bool:
    """Return whether an assistant's message is among those that a client sent."""
    return any(message.get("role") == "assistant" for message in reversed(messages))


class AnswerLookup:
    """The answers of one owner that can be found, by key. A key may have several nodes."""

    def __init__(self) -> None:
        # Nearly every key has one node, which takes no container then. A dictionary keeps the order of insertion.
        self._by_key: dict[bytes, DigestNode | dict[DigestNode, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def add(self, key: bytes, node: DigestNode) -> None:
        """Add a node, the newest of its key."""
        found = self._by_key.setdefault(key, node)
        if isinstance(found, dict):
            found[node] = None
        elif found is not node:
            self._by_key[key] = {found: None, node: None}

    def remove(self, key: bytes, node: DigestNode) -> None:
        """Remove a node, if it is there."""
        found = self._by_key.get(key)
        if isinstance(found, dict):
            found.pop(node, None)
        if found is node or found == {}:
            del self._by_key[key]

    def newest(self, key: bytes, most: int) -> list[DigestNode]:
        """Return the nodes of a key, the newest first, at most ``most`` of them."""
        found = self._by_key.get(key)
        if isinstance(found, dict):
            return list(islice(reversed(found), most))
        return [] if found is None else [found]


def node_digest(message: ChatMessage) -> bytes:
    """Return the digest of a message: 16 bytes, none for a message that makes no difference."""
    return digest_bytes(message_digest(message))


def digest_bytes(digest: str) -> bytes:
    """Return a digest of ``message_matching`` in the form in which it is remembered."""
    return b"" if digest in (NO_DIGEST, _EMPTY_ANSWER) else bytes.fromhex(digest)


# Clients add and drop empty answers, such as those of requests that failed.
_EMPTY_ANSWER = message_digest({"role": "assistant", "content": None})


def ordinary_key(digest: bytes, before: bytes) -> bytes:
    """Return the key of an answer that is found together with the message before it."""
    return digest + b"\0" + before


def cut_key(before: bytes) -> bytes:
    """Return the key of an answer that was cut off: the digest of the message before it."""
    return b"\0" + before
