"""Has each request sent to a slot of our choice, so that nobody's prompt is read from another's cache.

llama.cpp gives a request the slot with the most similar prompt, and says how many tokens it took from there
(``cached_tokens``). So whoever sends the beginning of a text learns whether somebody else has sent it. Where several
owners may call, each request is therefore sent to a slot of our choice (``id_slot``): one whose last prompt is of the
same owner, or else one that is used without its cache (``cache_prompt: false``).

llama.cpp has a second cache of prompts, in main memory, which knows no slots: where a slot has too little of a prompt,
what that cache has is put into it (``get_available_slot`` in tools/server/server-context.cpp). So with a model server
that has one no cache is used at all; the supervisor starts it without where owners are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.large_requests import work_on
from mistral_api.upstream.prompt_pieces import prompt_pieces
from mistral_api.upstream.slot_table import Prompt, PromptSource, Release, SlotTable, note_nothing


@dataclass(frozen=True, slots=True)
class PlacedRequest:
    """A request for the model server.

    ``note_answer`` is to be called when the model server begins to answer it, which it does once the prompt is in the
    slot, and ``end`` at its end, in any case.
    """

    request: ChatPayload
    end: Release
    note_answer: Callable[[], None] = note_nothing


class SlotOwners:
    """Keeps owners apart in the slots of a model server. Safe to use from many threads, and in tasks."""

    def __init__(
        self, table: SlotTable, process: Callable[[], object | None], several_owners: Callable[[], bool]
    ) -> None:
        """``process`` tells one process of the model server from the next."""
        self._table = table
        self._process = process
        self._several_owners = several_owners

    def place(self, source: PromptSource, request: ChatPayload, count: int, release: Release) -> PlacedRequest:
        """Return a request as the model server gets it, with what notes its answer, and its end by ``release``.

        ``count``: how many slots it takes. The request itself is not changed.
        """
        server = self._process()
        if not self._several_owners():
            return PlacedRequest(request, self._table.begin_of_only_owner(server, release))
        pieces = work_on(request, lambda: tuple(prompt_pieces(request)))
        anywhere = count > 1 or request.get("id_slot", -1) >= 0
        placement = self._table.place(Prompt(source, pieces, server, anywhere), release)
        placed: ChatPayload = request if placement.slot is None else request | {"id_slot": placement.slot}
        if not placement.cached:
            placed = placed | {"cache_prompt": False}
        return PlacedRequest(placed, placement.end, placement.note_answer)

    @contextmanager
    def unplaced(self) -> Iterator[None]:
        """Within the block a request of another kind runs in any slot: nobody knows what is in the free ones then."""
        end = self._table.begin_unplaced(alone=not self._several_owners())
        try:
            yield
        finally:
            end()
