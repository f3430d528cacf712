"""What is in the slots of a model server, for all API processes of one ``bin/serve``: the first one has the table.

In each other process :class:`RemoteSlotTable` asks the first one for the slot of a request, and tells it of the answer
and of the end. While there is one owner alone nothing is asked, and the first process is told only that requests run,
and that they run no longer. What another process has in the table ends with that process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import TypedDict

from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub
from mistral_api.upstream.prompt_pieces import Piece
from mistral_api.upstream.shared_slot_pool import slots_unavailable
from mistral_api.upstream.slot_table import OwnSlotTable, Placement, Prompt, PromptSource, Release, note_nothing, once

_ROOM = "slot-table"


class _SentPrompt(TypedDict):
    """A :class:`Prompt` as it is sent: each piece as its hash and its length, the model server's process by name."""

    owner: str
    session_id: str
    pieces: list[tuple[int, ...]]
    server: str
    anywhere: bool


def _sent(prompt: Prompt) -> _SentPrompt:
    return {
        "owner": prompt.source.owner,
        "session_id": prompt.source.session_id,
        "pieces": [tuple(piece) for piece in prompt.pieces],
        "server": repr(prompt.server),
        "anywhere": prompt.anywhere,
    }


class RemoteSlotTable:
    """The table in the memory of the first process (:class:`mistral_api.upstream.slot_table.SlotTable`)."""

    def __init__(self, first: Peer, name: str) -> None:
        """``name``: of the model server."""
        self._first = first
        self._prefix = f"{_ROOM}.{name}"
        self._numbers = count(1)
        self._lock = threading.Lock()
        # How many requests of an only owner run, and at which process of the model server, as the first one knows it.
        self._alone = 0
        self._told_server: object | None = None

    def place(self, prompt: Prompt, release: Release) -> Placement:
        """See :class:`SlotTable`. Raises Unavailable where the first process does not answer.

        A request that was sent to any slot all the same would be one that the first process knows nothing of when it
        goes on: an owner's prompt could be where it takes another one's for.
        """
        number = next(self._numbers)
        try:  # where it raises, it is the caller's to call `release`
            slot, cached = self._first.call(f"{self._prefix}.place", number, _sent(prompt))
        except PeerGone as error:
            self._tell("end", number)
            raise slots_unavailable() from error
        except BaseException:  # the task ends
            self._tell("end", number)
            raise
        end = self._telling_once("end", number, release)
        return Placement(slot, cached, end, lambda: self._tell("note_answer", number))

    def begin_of_only_owner(self, server: object | None, release: Release) -> Release:
        with self._lock:  # while it is told: else the end of all others could be told after that
            self._alone += 1
            if self._alone == 1 or server != self._told_server:
                self._told_server = server
                self._tell("begin_alone", repr(server))
        return once(self._end_of_only_owner, release)

    def _end_of_only_owner(self) -> None:
        with self._lock:
            self._alone -= 1
            if not self._alone:
                self._tell("end_alone")

    def begin_unplaced(self, *, alone: bool) -> Release:
        if alone:
            return self.begin_of_only_owner(self._told_server, note_nothing)
        number = next(self._numbers)
        end = self._telling_once("end", number, note_nothing)
        try:
            # No other request may be sent to a slot meanwhile as if nothing else could be there.
            self._first.call(f"{self._prefix}.begin_unplaced", number)
        except PeerGone as error:
            end()
            raise slots_unavailable() from error
        except BaseException:
            end()
            raise
        return end

    def _telling_once(self, what: str, number: int, release: Release) -> Release:
        return once(lambda: self._tell(what, number), release)

    def _tell(self, what: str, *arguments: object) -> None:
        self._first.tell(f"{self._prefix}.{what}", *arguments)


class _RemoteRequests:
    """What one other process has in the table, and does there, until it ends."""

    def __init__(self, peer: Peer, prefix: str, table: OwnSlotTable, process: Callable[[], object | None]) -> None:
        self._table, self._process = table, process
        self._lock = threading.Lock()
        # By the numbers that the other process gives them; and those that ended before they were placed.
        self._placements: dict[int, Placement] = {}
        self._ended_early: set[int] = set()
        self._end_alone: Release = note_nothing
        self._ended = False
        peer.handle(f"{prefix}.place", self._place, waits=True)
        peer.handle(f"{prefix}.begin_unplaced", self._begin_unplaced)
        peer.handle(f"{prefix}.note_answer", self._note_answer)
        peer.handle(f"{prefix}.end", self._end)
        peer.handle(f"{prefix}.begin_alone", self._begin_alone)
        peer.handle(f"{prefix}.end_alone", lambda: self._replace_alone(note_nothing))
        peer.on_end(self._end_all)

    def _place(self, number: int, sent: _SentPrompt) -> tuple[int | None, bool]:
        server, source = self._process(), PromptSource(sent["owner"], sent["session_id"])
        # Where one of the two processes has not heard yet that the model server is another one, nothing is known.
        anywhere = sent["anywhere"] or sent["server"] != repr(server)
        prompt = Prompt(source, tuple(Piece(*piece) for piece in sent["pieces"]), server, anywhere)
        placement = Placement(None, cached=False, end=note_nothing)
        try:
            placement = self._table.place(prompt, note_nothing)
        finally:
            self._keep(number, placement)
        return placement.slot, placement.cached

    def _begin_unplaced(self, number: int) -> None:
        self._keep(number, Placement(None, cached=False, end=self._table.begin_unplaced(alone=False)))

    def _keep(self, number: int, placement: Placement) -> None:
        """Keep what has begun until it ends, which it may have done already."""
        with self._lock:
            keeps = not (self._ended or number in self._ended_early)
            if keeps:
                self._placements[number] = placement
            else:
                self._ended_early.discard(number)
        if not keeps:
            placement.end()

    def _note_answer(self, number: int) -> None:
        placement = self._placements.get(number)
        if placement is not None:
            placement.note_answer()

    def _end(self, number: int) -> None:
        with self._lock:
            placement = self._placements.pop(number, None)
            if placement is None:
                self._ended_early.add(number)
        if placement is not None:
            placement.end()

    def _begin_alone(self, server: str) -> None:
        own_server = self._process()
        self._replace_alone(
            self._table.begin_of_only_owner(own_server if repr(own_server) == server else server, note_nothing)
        )

    def _replace_alone(self, end: Release) -> None:
        """End what has run of an only owner, and keep the end of what runs now."""
        with self._lock:
            end_before, self._end_alone = self._end_alone, end
            if self._ended:
                self._end_alone = note_nothing
        end_before()
        if self._ended:
            end()

    def _end_all(self) -> None:
        with self._lock:
            self._ended = True
            placements = list(self._placements.values())
            self._placements.clear()
        for placement in placements:
            placement.end()
        self._replace_alone(note_nothing)


def offer_slot_table(hub: Hub, name: str, table: OwnSlotTable, process: Callable[[], object | None]) -> None:
    """Let the other processes use the table of a model server (``name``), whose process now ``process`` returns."""

    def offer(peer: Peer) -> None:
        _RemoteRequests(peer, f"{_ROOM}.{name}", table, process)  # the peer keeps it

    hub.offer(offer)
