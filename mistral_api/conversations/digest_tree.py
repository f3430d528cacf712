"""A conversation as digests: as much of its message tree in memory as it takes to recognise it.

A :class:`DigestNode` stands for a message: it has the message's digest (``message_matching``) and its parent. Messages
without a digest (system messages, empty answers) have no node, so that they make no difference. An
:class:`AnswerLookup` finds the nodes of answers by what a client sends of them.

A *distinctive* answer has tool calls, or is long enough that nobody else says the same by chance. Its digest is enough
to find it. Any other answer is found only together with the message before it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mistral_api.conversations.message_matching import message_digest
from mistral_api.payload_types.chat import ChatMessage

# So many characters of text make an answer distinctive.
DISTINCTIVE_CHARACTERS = 80
# How much of the text of an answer that was cut off is compared.
CUT_TEXT_CHARACTERS = 500
# A client may have received more of an answer than was recorded when its process died. Checkpoints are written twice a
# second, which is a few hundred characters of a fast model.
MOST_UNRECORDED_CHARACTERS = 2000


class CutAnswer:
    """The text of an answer that was cut off, of which the client may have more or less."""

    __slots__ = ("beginning", "length")

    def __init__(self, text: str) -> None:
        self.beginning = text[:CUT_TEXT_CHARACTERS]
        self.length = len(text)

    def agrees_with(self, text: str) -> bool:
        """Return whether a text is a beginning of the answer, or the answer and what else its client received."""
        compared = text[:CUT_TEXT_CHARACTERS]
        shorter = min(len(compared), len(self.beginning))
        if not shorter or len(text) > self.length + MOST_UNRECORDED_CHARACTERS:
            return False
        return compared[:shorter] == self.beginning[:shorter]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of ours: its comparable text, or the beginning of it; whether it calls tools, and was cut off."""

    text: str
    calls_tools: bool = False
    cut: bool = False

    @classmethod
    def of(cls, message: ChatMessage, *, cut: bool = False) -> Answer:
        """Return what matters of an assistant's message."""
        return cls(comparable_text(message), bool(message.get("tool_calls")), cut)

    def key(self, digest: bytes, before: bytes) -> bytes:
        """Return the key by which the answer is found: its digest, and unless it is distinctive the one before it."""
        distinctive = self.calls_tools or len(self.text) >= DISTINCTIVE_CHARACTERS
        return digest if distinctive else digest + b"\0" + before


class DigestNode:
    """A message of a conversation.

    ``key`` is that under which an answer of ours is found, None for all other messages. ``continuations`` counts the
    messages that follow it, and the running requests that are about to add one. ``cut`` is there for an answer that was
    cut off.
    """

    __slots__ = ("continuations", "cut", "digest", "key", "parent", "tree")

    def __init__(
        self, tree: DigestTree, parent: DigestNode | None, digest: bytes, answer: Answer | None = None
    ) -> None:
        """``answer`` is there for a message that this server generated."""
        self.tree, self.parent, self.digest = tree, parent, digest
        self.key = answer.key(digest, parent.digest if parent else b"") if answer else None
        self.cut = CutAnswer(answer.text) if answer and answer.cut else None
        self.continuations = 0

    @property
    def keys(self) -> list[bytes]:
        """Every key under which it is found."""
        cut = [cut_answer_key(self.parent.digest)] if self.cut and self.parent else []
        return cut if self.key is None else [self.key, *cut]

    @property
    def size(self) -> int:
        """What it takes of the memory, in messages of the usual size."""
        return 1 if self.cut is None else 1 + len(self.cut.beginning) // 100


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
        self, parent: DigestNode | None, sent: SentMessages, start: int, most: int
    ) -> tuple[DigestNode | None, list[bytes]]:
        """Follow a list from a position on below ``parent`` (None: the root), as far as it is known.

        Return the last message that is known, and the digests of the others, of long lists the last ``most``.
        """
        positions = [position for position in range(start, len(sent)) if sent.digest(position)]
        known = 0
        while known < len(positions) and (child := self._child(parent, sent, positions[known])) is not None:
            parent, known = child, known + 1
        new = positions[known:]
        return (parent if len(new) <= most else None), [sent.digest(position) for position in new[-most:]]

    def _child(self, parent: DigestNode | None, sent: SentMessages, position: int) -> DigestNode | None:
        """Return the newest message below ``parent`` that a sent one repeats, if any does."""
        if parent is not None and not parent.continuations:
            return None
        nodes = (node for node in reversed(self.nodes) if node.parent is parent)
        return next((node for node in nodes if sent.repeats(position, node)), None)


class SentMessages:
    """A list of messages that a client sent. A digest is computed when it is first needed."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._messages = messages
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def has_answer(self) -> bool:
        """Whether an assistant's message is among them."""
        return any(message.get("role") == "assistant" for message in reversed(self._messages))

    def answer_positions(self, most: int) -> Iterator[int]:
        """Yield the positions of answers that say something, the last one first, at most ``most`` of them."""
        positions = (number for number in range(len(self._messages) - 1, -1, -1) if self._is_answer(number))
        return islice(positions, most)

    def _is_answer(self, position: int) -> bool:
        return self._messages[position].get("role") == "assistant" and bool(self.digest(position))

    def digest(self, position: int | None) -> bytes:
        """Return the digest of a message, empty for one without, and for no message."""
        if position is None:
            return b""
        digest = self._digests.get(position)
        if digest is None:
            digest = self._digests[position] = node_digest(self._messages[position])
        return digest

    def before(self, position: int) -> int | None:
        """Return the position of the message before, None for the first one. Messages without a digest do not count."""
        return next((number for number in range(position - 1, -1, -1) if self.digest(number)), None)

    def answer_key(self, position: int) -> bytes:
        """Return the key under which the same answer of ours would be found."""
        before = self.before(position)
        return Answer.of(self._messages[position]).key(self.digest(position), self.digest(before))

    def text(self, position: int) -> str:
        """Return the text of a message in the form in which texts are compared."""
        return comparable_text(self._messages[position])

    def repeats(self, position: int, node: DigestNode) -> bool:
        """Return whether a message is the one that a node stands for."""
        if self.digest(position) == node.digest:
            return True
        return node.cut is not None and self._is_answer(position) and node.cut.agrees_with(self.text(position))


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
    if message.get("role") in ("system", "developer") or _is_empty_answer(message):
        return b""
    return bytes.fromhex(message_digest(message))


def _is_empty_answer(message: ChatMessage) -> bool:
    return message.get("role") == "assistant" and not message.get("tool_calls") and not message.get("content")


def cut_answer_key(before: bytes) -> bytes:
    """Return the key of an answer that was cut off: the digest of the message before it."""
    return b"\0" + before


def comparable_text(message: ChatMessage) -> str:
    """Return the text of a message without white space at its ends, in Unicode's composed form, with LF line ends."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()
