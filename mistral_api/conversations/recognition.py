"""Recognising the conversation that a request continues by the messages that its client sends again.

Most clients name no session: they send the whole history each turn. :class:`RecognitionIndex` has the newest
conversations in memory, as digests, and finds the one whose answers a sent list repeats. No request waits for a
database.

A list continues a conversation if it has an answer that this server gave to this owner, and

- that answer is distinctive (``digest_tree``), or
- the message before it is the same too, or both begin with that answer.

So a greeting is not enough, nor are the examples in a prompt, which no model of ours has answered. The last answer of
the list counts; one that is not known, edited or from another server, is passed over for the answer before it. Of
several conversations that have the answer, the one is continued that

1. shares the longest run of messages that ends with the answer,
2. begins where the list begins,
3. has not been continued there yet,
4. was last used by the same client,
5. was used last.

A window of the last messages, or a list with a summary in the place of its oldest messages, is recognised by the same
rules, since nothing asks for the beginning. An answer that was cut off is found by the message before it, if what the
client has is a beginning of it, or little more than it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from mistral_api.conversations.digest_tree import (
    Answer,
    AnswerLookup,
    DigestNode,
    DigestTree,
    MessageDigests,
    SentDigests,
    cut_key,
)
from mistral_api.conversations.ended_turn import EndedTurn
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange

# The bound of the memory, in messages: about 300 bytes each.
MAX_MESSAGES = 100_000
# So many of the last answers of a list are looked up, and so many conversations with the same answer are compared, by
# at most so many messages.
MOST_ANSWERS, MOST_CANDIDATES, LONGEST_RUN = 16, 256, 32
# How often another conversation is looked for since a request at the same time has taken the one that was found.
MOST_ATTEMPTS = 10
# Of a list that fits nowhere in its conversation the last messages are remembered.
MOST_NEW_MESSAGES = 64


class Recognized(Protocol):
    """The conversation that a list of messages continues."""

    @property
    def session_id(self) -> str: ...


class Recognition(Protocol):
    """Who recognises conversations: the index, or the way to the one of another process (``shared_recognition``)."""

    def find(self, owner: str, client: str | None, messages: Sequence[ChatMessage]) -> Recognized | None:
        """Return where a sent list continues a conversation of its owner, or None where it continues none."""

    def find_and_claim(
        self, owner: str, client: str | None, messages: Sequence[ChatMessage], exchange_id: UUID
    ) -> Recognized | None:
        """Return what :meth:`find` does. The conversation counts as continued there from now on, until :meth:`note`."""

    def note(self, exchange: Exchange) -> None:
        """Take in an exchange that has ended."""


@dataclass(frozen=True, slots=True)
class Match:
    """The answer that a list of messages repeats: at which position of the list, and where it is in its tree.

    ``continuations`` is how often it had been continued when it was chosen.
    """

    node: DigestNode
    position: int
    continuations: int

    @property
    def session_id(self) -> str:
        """The session that the list continues."""
        return self.node.tree.session_id


@dataclass(frozen=True, slots=True)
class StoredDigest:
    """A stored message from which a conversation is remembered.

    ``answer`` is there where this server generated it. ``continued``: another message follows it, which is not read.
    """

    id: UUID
    parent_id: UUID | None
    digest: bytes
    answer: Answer | None = None
    continued: bool = False


class RecognitionIndex:
    """The newest conversations of all owners, as digests. Safe to use from many threads.

    The conversations that were not used for the longest time are dropped where there is no room for all.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES) -> None:
        self._max_messages = max_messages
        self._lock = threading.Lock()
        self._size = 0
        # The conversation used last stands at the end.
        self._trees: OrderedDict[tuple[str, str], DigestTree] = OrderedDict()
        self._lookups: dict[str, AnswerLookup] = {}
        self._claims: dict[UUID, Match] = {}
        # What was forgotten while stored conversations are restored, so that they do not come back; None otherwise.
        self._forgotten: set[tuple[str, str]] | None = None

    @property
    def size(self) -> int:
        """How much is remembered, in messages of the usual size."""
        return self._size

    def find(self, owner: str, client: str | None, messages: Sequence[ChatMessage]) -> Match | None:
        """Return where a sent list continues a conversation of its owner, or None where it continues none.

        A list without an answer costs nothing. For any other the last two or three messages are hashed.
        """
        return self.find_sent(owner, client, MessageDigests(messages))

    def find_sent(self, owner: str, client: str | None, sent: SentDigests) -> Match | None:
        """Return what :meth:`find` does, for a list by its digests. Raises what these raise."""
        if owner not in self._lookups or not sent.has_answer:
            return None
        return self._find(owner, client, sent)

    def find_and_claim(
        self, owner: str, client: str | None, messages: Sequence[ChatMessage], exchange_id: UUID
    ) -> Match | None:
        """Return what :meth:`find` does. The conversation counts as continued there from now on, until :meth:`note`.

        So of two requests at the same time that could continue the same two conversations each gets its own.
        """
        return self.claim_sent(owner, client, MessageDigests(messages), exchange_id)

    def claim_sent(self, owner: str, client: str | None, sent: SentDigests, exchange_id: UUID) -> Match | None:
        """Return what :meth:`find_and_claim` does, for a list by its digests. Raises what these raise."""
        for _ in range(MOST_ATTEMPTS):
            match = self.find_sent(owner, client, sent)
            if match is None or self._claim(exchange_id, match):
                return match
        return match

    def _find(self, owner: str, client: str | None, sent: SentDigests, tree: DigestTree | None = None) -> Match | None:
        """Return where a list continues any conversation, or where it continues ``tree``."""
        for position in sent.answer_positions(MOST_ANSWERS):
            candidates = self._candidates(owner, sent, position)
            if tree is not None:
                candidates = [node for node in candidates if node.tree is tree]
            if candidates:
                best, continuations = _best(candidates, client, sent, position)
                return Match(best, position, continuations)
        return None

    def _candidates(self, owner: str, sent: SentDigests, position: int) -> list[DigestNode]:
        """Return the answers of ours that may be the one at a position, the newest first."""
        candidates = self._lookup(owner, sent.answer_key(position))
        before = sent.digest_before(position)
        if candidates or not before:
            return candidates
        return [node for node in self._lookup(owner, cut_key(before)) if sent.repeats(position, node)]

    def _lookup(self, owner: str, key: bytes) -> list[DigestNode]:
        with self._lock:
            lookup = self._lookups.get(owner)
            return lookup.newest(key, MOST_CANDIDATES) if lookup is not None else []

    def _claim(self, exchange_id: UUID, match: Match) -> bool:
        """Claim what was found. Return False where another request has continued it meanwhile."""
        with self._lock:
            if match.node.continuations != match.continuations:
                return False
            self._claims[exchange_id] = match
            match.node.continuations += 1
        return True

    def note(self, exchange: Exchange) -> None:
        """Take in an exchange that has ended.

        Without an answer, or a conversation, nothing of it is remembered. Nobody continues a side request.
        """
        turn = EndedTurn.of(exchange)
        if turn is None:
            self.release(exchange.id)
        else:
            self.note_turn(turn, MessageDigests(exchange.messages or []))

    def note_turn(self, turn: EndedTurn, sent: SentDigests) -> None:
        """Take in what is remembered of an exchange. Where the digests raise something, nothing has been noted."""
        match = self.release(turn.exchange_id)
        tree = self._used_tree(turn)
        try:
            parent, new = self._place(tree, turn, sent, match)
        except BaseException:
            self._claim_again(turn.exchange_id, match)
            raise
        with self._lock:
            if self._is_forgotten(tree):
                return
            for digest in new:
                parent = self._add(DigestNode(tree, parent, digest))
            added = [self._add(DigestNode(tree, parent, digest, answer)) for digest, answer in turn.answers if digest]
            tree.last_answer = added[0] if added else tree.last_answer
            self._drop_oldest()

    def release(self, exchange_id: UUID) -> Match | None:
        """End the claim of a request. Return where it continues its conversation, if it was recognised."""
        with self._lock:
            match = self._claims.pop(exchange_id, None)
            if match is not None:
                match.node.continuations -= 1
        return match

    def _claim_again(self, exchange_id: UUID, match: Match | None) -> None:
        if match is not None:
            with self._lock:
                self._claims[exchange_id] = match
                match.node.continuations += 1

    def _used_tree(self, turn: EndedTurn) -> DigestTree:
        """Return the tree of a turn's conversation, now the one that was used last."""
        key = turn.owner, turn.session_id
        with self._lock:
            tree = self._trees.get(key) or self._add_tree(*key)
            self._trees.move_to_end(key)
            tree.client, tree.used_at = turn.client or tree.client, max(tree.used_at, turn.used_at)
        return tree

    def _add_tree(self, owner: str, session_id: str) -> DigestTree:
        """Add an empty tree, which takes as much as a message. The lock is held."""
        self._size += 1
        tree = self._trees[owner, session_id] = DigestTree(owner, session_id)
        return tree

    def _place(
        self, tree: DigestTree, turn: EndedTurn, sent: SentDigests, match: Match | None
    ) -> tuple[DigestNode | None, list[bytes]]:
        """Return the message below which a list goes (None: the root), and the digests of its new messages.

        The list is placed as in the stored tree: below the answer that it repeats; without an answer below the last
        one; with answers that fit nowhere at the root. Messages after that which are known already are passed over.
        """
        if turn.follows_known or not sent.has_answer:
            return tree.descend(tree.last_answer, sent, 0, MOST_NEW_MESSAGES)
        if match is None or match.node.tree is not tree:
            match = self._find(tree.owner, None, sent, tree)
        if match is None:
            return tree.descend(None, sent, 0, MOST_NEW_MESSAGES)
        return tree.descend(match.node, sent, match.position + 1, MOST_NEW_MESSAGES)

    def _is_forgotten(self, tree: DigestTree) -> bool:
        """Return whether a tree was removed while it was read."""
        return self._trees.get((tree.owner, tree.session_id)) is not tree

    def _add(self, node: DigestNode) -> DigestNode:
        """Add a node to its tree. The lock is held."""
        tree = node.tree
        tree.nodes.append(node)
        if node.parent is not None:
            node.parent.continuations += 1
        lookup = self._lookups.setdefault(tree.owner, AnswerLookup())
        for key in node.keys:
            lookup.add(key, node)
        self._size += node.size
        return node

    def _drop_oldest(self) -> None:
        """Drop conversations until the others have room. The lock is held."""
        while self._size > self._max_messages:
            self._remove(next(iter(self._trees)))

    def _remove(self, key: tuple[str, str]) -> None:
        """Remove a conversation, if it is there. The lock is held."""
        tree = self._trees.pop(key, None)
        if tree is None:
            return
        self._size -= 1
        lookup = self._lookups.get(tree.owner, AnswerLookup())
        for node in tree.nodes:
            self._size -= node.size
            for each in node.keys:
                lookup.remove(each, node)
        # Nodes and tree refer to each other: without this they would wait for the garbage collector.
        tree.nodes, tree.last_answer = [], None
        if not lookup:
            self._lookups.pop(tree.owner, None)

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Within the block :meth:`restore` passes over what is forgotten meanwhile."""
        with self._lock:
            self._forgotten = set()
        try:
            yield
        finally:
            with self._lock:
                self._forgotten = None

    def restore(self, owner: str, session_id: str, used_at: float, stored: Sequence[StoredDigest]) -> bool:
        """Add a stored conversation, parents before their children, as the one that was not used for the longest time.

        Return whether there was room for it.
        """
        with self._lock:
            if self._forgotten and (owner, session_id) in self._forgotten:
                return True
            if self._size + len(stored) >= self._max_messages:
                return False
            tree = self._trees.get((owner, session_id))
            if tree is None:
                tree = self._add_tree(owner, session_id)
                self._trees.move_to_end((owner, session_id), last=False)
            tree.used_at = max(tree.used_at, used_at)
            self._add_stored(tree, stored)
        return True

    def _add_stored(self, tree: DigestTree, stored: Sequence[StoredDigest]) -> None:
        """Add stored messages that are not known yet. Those without a digest are passed over, for their parent."""
        known = {(node.parent, node.digest): node for node in tree.nodes}
        by_id: dict[UUID | None, DigestNode | None] = {None: None}
        last = None
        for each in stored:
            node = parent = by_id.get(each.parent_id)
            if each.digest:
                found = known.get((parent, each.digest))
                node = self._restore_answer(found, each) if found else self._add(_stored_node(tree, parent, each))
            by_id[each.id] = node
            if node is not None and each.continued:
                node.continuations += 1
            last = node if each.answer and each.digest else last
        tree.last_answer = tree.last_answer or last

    def _restore_answer(self, node: DigestNode, stored: StoredDigest) -> DigestNode:
        """Let a message be an answer of ours that was only known as one that a client had sent. The lock is held."""
        if node.answer is None and stored.answer is not None:
            node.answer = stored.answer
            for key in node.keys:
                self._lookups.setdefault(node.tree.owner, AnswerLookup()).add(key, node)
        return node

    def forget(self, owner: str, session_id: str) -> None:
        """Forget a conversation that was deleted or changed."""
        with self._lock:
            if self._forgotten is not None:
                self._forgotten.add((owner, session_id))
            self._remove((owner, session_id))

    def forget_before(self, moment: float) -> None:
        """Forget the conversations that were last used before a moment (Unix seconds)."""
        with self._lock:
            for key in [key for key, tree in self._trees.items() if tree.used_at < moment]:
                self._remove(key)


def _stored_node(tree: DigestTree, parent: DigestNode | None, stored: StoredDigest) -> DigestNode:
    return DigestNode(tree, parent, stored.digest, stored.answer)


def _best(
    candidates: Sequence[DigestNode], client: str | None, sent: SentDigests, position: int
) -> tuple[DigestNode, int]:
    """Return the candidate that shares most with a list up to a position, and how often it has been continued.

    Of equal ones the rules decide.
    """
    continuations = {node: node.continuations for node in candidates}

    def rank(node: DigestNode) -> tuple[int, bool, bool, bool, float]:
        length, whole = _shared_run(node, sent, position)
        same_client = client is not None and node.tree.client == client
        return length, whole, not continuations[node], same_client, node.tree.used_at

    best = candidates[0] if len(candidates) == 1 else max(candidates, key=rank)
    return best, continuations[best]


def _shared_run(node: DigestNode, sent: SentDigests, position: int) -> tuple[int, bool]:
    """Return how many messages before an answer are the same, and whether these are all that there are."""
    parent, before = node.parent, sent.before(position)
    length = 0
    while parent is not None and before is not None and length < LONGEST_RUN and sent.repeats(before, parent):
        parent, before, length = parent.parent, sent.before(before), length + 1
    return length, parent is None and before is None
