"""Where in a stored conversation a sent list of messages belongs: which of them it repeats, and what is new.

Only messages with a digest take part (``message_matching``): neither system messages nor empty ones. A *run* is a part
of the sent list that repeats stored messages which follow one another. Suppose that a conversation has stored
``U1 A1 U2 A2 U3 A3``. Then a client that sends

- ``U1 A1 U2 A2 U3 A3 U4`` repeats a whole branch; ``U4`` is new, below ``A3``.
- ``U1 A1 U9`` has edited a message: ``U9`` is new, below ``A1``, and begins another branch.
- ``U1 A1 U2`` asks for another answer to ``U2``.
- ``A3 U4`` or ``U3 A3 U4`` sends a *window* of the last messages.
- ``X U3 A3 U4`` or ``U1 A1 X U3 A3 U4`` has replaced older messages by a summary ``X``; tool results that are shortened
  or cleared are such a replacement too. ``U1 A1 U3 A3 U4`` leaves some out.
- ``U1 A1 X A2 U3 A3 U4`` has put one message in the place of one other: that is an edit, and a branch below ``A1``.
- ``X Y`` repeats nothing.

A run counts only if an answer of the assistant is in it: the same question may be asked twice. A single answer counts
only where it cannot be mistaken: as the last one of the conversation, or where no other message is like it and it is
long, a tool call, or the first message of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol
from uuid import UUID

from mistral_api.conversations.message_matching import message_digest, normalized_text
from mistral_api.payload_types.chat import ChatMessage

DISTINCTIVE_CHARACTERS = 80
# So many runs are followed at a time. So many of the newest stored messages that are the same begin one, and of those
# that are the same below one message so many continue one.
MOST_RUNS, MOST_STARTS, MOST_SIBLINGS = 64, 32, 8


class StoredNode(Protocol):
    """A stored message with a digest. ``depth`` counts such messages above it; ``sequence`` is the order of arrival."""

    @property
    def id(self) -> UUID: ...
    @property
    def role(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def sequence(self) -> int: ...


class StoredTree(Protocol):
    """A conversation, as far as a sent list may repeat it."""

    def nodes_with(self, digest: str) -> Sequence[StoredNode]:
        """Return the stored messages with a digest, the newest last."""

    def children_with(self, parent: UUID | None, digest: str) -> Sequence[StoredNode]:
        """Return those of them that follow another one with a digest, None for those that follow none."""

    def parent_of(self, node: StoredNode) -> UUID | None:
        """Return the message with a digest above another one, None above the first."""

    def cut_answer_below(self, parent: UUID, text: str) -> StoredNode | None:
        """Return the interrupted answer below a message that begins as the text does, or that the text begins as."""

    def is_end(self, node: StoredNode) -> bool:
        """Return whether the current branch ends with a message, apart from what never got an answer."""

    def is_question_at_end(self, node: StoredNode) -> bool:
        """Return whether a message stands right above the end of the current branch."""


class SentMessages:
    """A sent list, with the digests of its messages. ``spine`` has the positions of those with a digest."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self.messages = messages
        self.digests = [message_digest(message) for message in messages]
        self.spine = [position for position, digest in enumerate(self.digests) if digest]

    @property
    def has_answer(self) -> bool:
        """Whether a message of the assistant is among them."""
        return any(self.role(index) == "assistant" for index in range(len(self.spine)))

    @property
    def last_answer_digest(self) -> str:
        """The digest of the last message of the assistant; empty where there is none."""
        indexes = range(len(self.spine) - 1, -1, -1)
        return next((self.digest(index) for index in indexes if self.role(index) == "assistant"), "")

    def message(self, index: int) -> ChatMessage:
        """Return a message of the spine."""
        return self.messages[self.spine[index]]

    def role(self, index: int) -> str:
        """Return the role of a message of the spine."""
        return self.message(index)["role"]

    def digest(self, index: int) -> str:
        """Return the digest of a message of the spine."""
        return self.digests[self.spine[index]]

    def text(self, index: int) -> str:
        """Return the text of a message of the spine as it is compared."""
        return normalized_text(self.message(index))


@dataclass(frozen=True, slots=True)
class Run:
    """Sent messages that repeat a part of a branch, up to the stored message ``end``.

    ``last`` is the index of its last message in the spine of the list, ``length`` the number of its messages,
    ``answers`` that of the assistant's among them, ``start`` the first stored message, ``before`` the run without
    ``end``.
    """

    last: int
    end: StoredNode
    before: Run | None
    start: StoredNode
    length: int
    answers: int

    @property
    def first(self) -> int:
        """The index of the first message."""
        return self.last - self.length + 1

    def nodes(self) -> Iterator[tuple[int, StoredNode]]:
        """Yield the index and the stored message of each repeated message, the last one first."""
        run: Run | None = self
        while run is not None:
            yield run.last, run.end
            run = run.before


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a sent list fits a conversation.

    ``repeated`` has the stored message for each position of the list that repeats one. What follows the position
    ``last`` is new, below ``end``. ``replaced`` are the positions before it that repeat nothing: a summary.
    """

    end: StoredNode
    last: int
    repeated: dict[int, UUID]
    replaced: list[int]


def align(tree: StoredTree, sent: SentMessages, *, resends_history: bool) -> Alignment | None:
    """Return how a sent list fits a conversation, None where it fits nowhere.

    ``resends_history``: the client is known to send all of its history, so a repeated question alone counts too, where
    the conversation begins with it.
    """
    if not sent.has_answer and not resends_history:
        return None
    runs = list(_find_runs(tree, sent))
    beginning = _longest(_runs_from_the_root(tree, runs))
    later = [_after(run, sent, beginning) for run in runs if beginning is None or run.last > beginning.last]
    unknown = _first_unknown(tree, sent, beginning)
    later = [run for run in later if _is_window(tree, sent, run, beginning, unknown)]
    best = max(later, key=lambda run: _rank(tree, sent, run), default=None)
    if best is None:
        return None if beginning is None else _alignment(tree, sent, beginning, None)
    return _alignment(tree, sent, best, beginning)


def _find_runs(tree: StoredTree, sent: SentMessages) -> Iterator[Run]:
    """Yield the longest run that ends with each sent message, for each stored message that it may repeat.

    Where very many stored messages are the same, only the longest and the newest runs are followed.
    """
    runs: list[Run] = []
    for index in range(len(sent.spine)):
        extended = {node.id: _extended(run, sent, node) for run in runs for node in _next_nodes(tree, sent, index, run)}
        roots = tree.children_with(None, sent.digest(index)) if index == 0 else ()
        for node in (*roots, *tree.nodes_with(sent.digest(index))[-MOST_STARTS:]):
            if node.id not in extended:
                extended[node.id] = Run(index, node, None, node, 1, int(sent.role(index) == "assistant"))
        runs = sorted(extended.values(), key=lambda run: (run.length, run.end.sequence))[-MOST_RUNS:]
        yield from runs


def _next_nodes(tree: StoredTree, sent: SentMessages, index: int, run: Run) -> Sequence[StoredNode]:
    """Return the stored messages with which a sent one continues a run."""
    nodes = tree.children_with(run.end.id, sent.digest(index))[-MOST_SIBLINGS:]
    if nodes or sent.role(index) != "assistant":
        return nodes
    # A client that stopped an answer has a little more, or less, of it than was recorded.
    cut = tree.cut_answer_below(run.end.id, sent.text(index))
    return () if cut is None else (cut,)


def _extended(run: Run, sent: SentMessages, node: StoredNode) -> Run:
    index = run.last + 1
    return Run(index, node, run, run.start, run.length + 1, run.answers + (sent.role(index) == "assistant"))


def _runs_from_the_root(tree: StoredTree, runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.first == 0 and tree.parent_of(run.start) is None]


def _longest(runs: Sequence[Run]) -> Run | None:
    return max(runs, key=lambda run: (run.last, run.end.sequence), default=None)


def _after(run: Run, sent: SentMessages, beginning: Run | None) -> Run:
    """Return a run without what the beginning of the list repeats already; as it is where it begins with the list."""
    if beginning is None or run.first == 0 or run.first > beginning.last:
        return run
    kept = list(takewhile(lambda repeated: repeated[0] > beginning.last, run.nodes()))[::-1]
    (index, node), *others = kept
    shortened = Run(index, node, None, node, 1, int(sent.role(index) == "assistant"))
    for _, node in others:
        shortened = _extended(shortened, sent, node)
    return shortened


def _first_unknown(tree: StoredTree, sent: SentMessages, beginning: Run | None) -> int:
    """Return the index of the first message after the beginning that is stored nowhere; changed tool results are none.

    Clients shorten and clear these.
    """
    indexes = range(_end_of(beginning), len(sent.spine))
    unknown = (index for index in indexes if not tree.nodes_with(sent.digest(index)) and sent.role(index) != "tool")
    return next(unknown, len(sent.spine))


def _end_of(beginning: Run | None) -> int:
    return beginning.last + 1 if beginning is not None else 0


def _is_window(tree: StoredTree, sent: SentMessages, run: Run, beginning: Run | None, unknown: int) -> bool:
    """Return whether a run that does not begin with the conversation shows where the list belongs.

    ``unknown`` is the index of the first message that is stored nowhere.
    """
    if not run.answers:
        return False
    if beginning is not None and run.start.depth <= beginning.end.depth:
        # Lists keep the order of the tree: this is another answer in the same words.
        return False
    if run.length == 1 and not tree.is_end(run.end) and not _is_unmistakable(tree, sent, run):
        return False
    return not (unknown < run.first and _is_edit(run, beginning))


def _is_unmistakable(tree: StoredTree, sent: SentMessages, run: Run) -> bool:
    unique = len(tree.nodes_with(sent.digest(run.last))) == 1
    return unique and (run.first == 0 or is_distinctive(sent.message(run.last)))


def is_distinctive(answer: ChatMessage) -> bool:
    """Return whether an answer says so much that hardly another one is like it."""
    return bool(answer.get("tool_calls")) or len(normalized_text(answer)) >= DISTINCTIVE_CHARACTERS


def _is_edit(run: Run, beginning: Run | None) -> bool:
    """Return whether new messages before a run are an edit: as many messages as they replace, or more."""
    above = beginning.end.depth if beginning is not None else -1
    return run.start.depth - above - 1 <= run.first - _end_of(beginning)


def _rank(tree: StoredTree, sent: SentMessages, run: Run) -> tuple[int, bool, int, int]:
    """Return what makes one run better than another: the last messages are in it, and it ends with the branch."""
    all_repeated = run.last == len(sent.spine) - 1
    at_end = tree.is_question_at_end(run.end) if all_repeated else tree.is_end(run.end)
    # Without the end of the branch in it, the repeated last question may be a new one in the same words.
    reach = run.last - 1 if all_repeated and not at_end else run.last
    return reach, at_end, run.length, run.end.sequence


def _alignment(tree: StoredTree, sent: SentMessages, run: Run, beginning: Run | None) -> Alignment:
    repeated = {sent.spine[index]: node.id for index, node in run.nodes()}
    if beginning is not None:
        repeated = {sent.spine[index]: node.id for index, node in beginning.nodes()} | repeated
    last = sent.spine[run.last]
    replaced = [
        position
        for position in sent.spine
        if position < last and position not in repeated and not tree.nodes_with(sent.digests[position])
    ]
    return Alignment(run.end, last, repeated, replaced)
