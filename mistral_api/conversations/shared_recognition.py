"""One recognition index for all API processes of a ``bin/serve``: the first one has it, and the others ask.

What they send is a summary of digests (``sent_summary``), never a message. What a client has seen of one process is
known when another one asks: an exchange that has ended was noted, or told and read, before its client saw the end, and
whoever looks for a conversation first does what all have told until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from mistral_api.conversations.digest_tree import MessageDigests, has_answer
from mistral_api.conversations.ended_turn import EndedTurn, TurnJson
from mistral_api.conversations.recognition import Match, Recognition, RecognitionIndex
from mistral_api.conversations.sent_summary import (
    SHORT_LIST,
    Incomplete,
    SentSummary,
    SummaryJson,
    summaries_to_find,
    summaries_to_note,
)
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Siblings
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

FIND, NOTE, RELEASE = "recognition.find", "recognition.note", "recognition.release"
# The answer of the first process where a summary lacks something.
MORE = "more"


@dataclass(frozen=True, slots=True)
class FoundSession:
    """The session of a conversation that the first process has found."""

    session_id: str


class FirstRecognition:
    """Recognises for the requests of the first process, which has the index."""

    def __init__(self, index: RecognitionIndex, catch_up: Callable[[], None]) -> None:
        """``catch_up``: does what the other processes have told until now."""
        self._index = index
        self._catch_up = catch_up
        self.note = index.note

    def find(self, owner: str, client: str | None, messages: Sequence[ChatMessage]) -> Match | None:
        """Return where a sent list continues a conversation of its owner, or None where it continues none."""
        if not has_answer(messages):
            return None
        self._catch_up()
        return self._index.find(owner, client, messages)

    def find_and_claim(
        self, owner: str, client: str | None, messages: Sequence[ChatMessage], exchange_id: UUID
    ) -> Match | None:
        """Return what :meth:`find` does. The conversation counts as continued there until the exchange has ended."""
        if not has_answer(messages):
            return None
        self._catch_up()
        return self._index.find_and_claim(owner, client, messages, exchange_id)


class SharedRecognition:
    """Recognises for the requests of another process. Where the first one does not answer, nothing is recognised."""

    def __init__(self, first: Peer) -> None:
        self._first = first
        self._warn = ThrottledWarning(log)
        # The exchanges that may have a claim in the first process.
        self._claims: set[UUID] = set()

    def find(self, owner: str, client: str | None, messages: Sequence[ChatMessage]) -> FoundSession | None:
        """Return where a sent list continues a conversation of its owner, or None where it continues none."""
        try:
            return self._find(owner, client, messages, None)
        except PeerGone as error:
            self._note_failure(error)
            return None

    def find_and_claim(
        self, owner: str, client: str | None, messages: Sequence[ChatMessage], exchange_id: UUID
    ) -> FoundSession | None:
        """Return what :meth:`find` does. The conversation counts as continued there until the exchange has ended."""
        try:
            found = self._find(owner, client, messages, exchange_id)
        except PeerGone as error:
            self._claims.add(exchange_id)  # it may have been made
            self._note_failure(error)
            return None
        if found is not None:
            self._claims.add(exchange_id)
        return found

    def _find(
        self, owner: str, client: str | None, messages: Sequence[ChatMessage], exchange_id: UUID | None
    ) -> FoundSession | None:
        if not has_answer(messages):
            return None
        claim = None if exchange_id is None else exchange_id.hex
        for summary in summaries_to_find(MessageDigests(messages)):
            found, session_id = self._first.call(FIND, owner, client, summary, claim)
            if found != MORE:
                return None if session_id is None else FoundSession(session_id)
        return None

    def note(self, exchange: Exchange) -> None:
        """Have the first process take in an exchange that has ended."""
        claimed = exchange.id in self._claims
        self._claims.discard(exchange.id)
        turn = EndedTurn.of(exchange)
        try:
            if turn is not None:
                self._note(turn, exchange.messages or [])
            elif claimed:
                self._first.tell(RELEASE, exchange.id.hex)
                self._first.flush()
        except PeerGone as error:
            self._note_failure(error)

    def _note(self, turn: EndedTurn, messages: Sequence[ChatMessage]) -> None:
        summaries = summaries_to_note(MessageDigests(messages), follows_known=turn.follows_known)
        if len(messages) <= SHORT_LIST:  # the first summary says all: nothing is answered
            self._first.tell(NOTE, turn.to_json(), next(summaries))
            self._first.flush()
            return
        for summary in summaries:
            if self._first.call(NOTE, turn.to_json(), summary) != MORE:
                return

    def _note_failure(self, error: PeerGone) -> None:
        self._warn("conversations are not recognised: %s", error)


def open_recognition(index: RecognitionIndex, siblings: Siblings, catch_up: Callable[[], None]) -> Recognition:
    """Return what recognises for this process. ``index`` is empty where another process has the one of all.

    ``catch_up``: does what the other processes have told until now.
    """
    if siblings.first is not None:
        return SharedRecognition(siblings.first)
    if siblings.hub is None:
        return index
    siblings.hub.offer(lambda peer: offer_index(index, peer, catch_up))
    return FirstRecognition(index, catch_up)


def offer_index(index: RecognitionIndex, peer: Peer, catch_up: Callable[[], None]) -> None:
    """Do on the index of the first process what another one asks.

    ``catch_up``: does what all processes have told until now.
    """
    offered = _OfferedIndex(index, peer, catch_up)
    peer.handle(FIND, offered.find, waits=True)
    peer.handle(NOTE, offered.note)
    peer.handle(RELEASE, offered.release)
    peer.on_end(offered.end)


class _OfferedIndex:
    """What the first process does on its index for one other process."""

    def __init__(self, index: RecognitionIndex, peer: Peer, catch_up: Callable[[], None]) -> None:
        self._index = index
        self._peer = peer
        self._catch_up = catch_up
        self._claims: set[UUID] = set()

    def find(self, owner: str, client: str | None, summary: SummaryJson, claim: str | None) -> tuple[str, str | None]:
        """Return the session that a list continues, or that more must be summarised of it."""
        self._catch_up()
        try:
            match = self._search(owner, client, SentSummary(summary), None if claim is None else UUID(claim))
        except Incomplete:
            return MORE, None
        return "", None if match is None else match.session_id

    def _search(self, owner: str, client: str | None, sent: SentSummary, exchange_id: UUID | None) -> Match | None:
        if exchange_id is None:
            return self._index.find_sent(owner, client, sent)
        match = self._index.claim_sent(owner, client, sent, exchange_id)
        if match is not None:
            self._claims.add(exchange_id)
            if self._peer.ended:  # it has ended meanwhile
                self._index.release(exchange_id)
        return match

    def note(self, turn: TurnJson, summary: SummaryJson) -> str:
        """Take in a turn that has ended, or return that more must be summarised of its list."""
        ended = EndedTurn.from_json(turn)
        try:
            self._index.note_turn(ended, SentSummary(summary))
        except Incomplete:
            return MORE
        self._claims.discard(ended.exchange_id)
        return ""

    def release(self, exchange_id: str) -> None:
        """End the claim of a request that has failed."""
        self._claims.discard(UUID(exchange_id))
        self._index.release(UUID(exchange_id))

    def end(self) -> None:
        """End all claims: the process has ended."""
        for exchange_id in list(self._claims):
            self._index.release(exchange_id)
