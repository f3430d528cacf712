"""Makes room in a KV cache that all slots share: what idle slots have of earlier requests must not fill it.

llama.cpp clears an idle slot where it lacks room. But a slot that has just got a request is not idle any more, and
keeps what it had until it begins to read the prompt; while others fill the batch it does not (``pre_decode`` in tools/
server/server-context.cpp). Where there is no room meanwhile, all requests that run are ended. Seen with four prompts at
once after longer answers. So whatever stands in idle slots has to fit into the cache beside what the requests that run
may need. Where no request needs more than the share of a slot, it does. Otherwise the slots are looked at before a
request is sent. It goes to the slot that has its conversation, or to the emptiest, and those that have not been used
for longest are cleared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from mistral_api.control.shared_cache import SharedCache
from mistral_api.errors import ApiError
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient

log = logging.getLogger(__name__)

# The last requests of so many conversations are known.
MOST_CONVERSATIONS = 1024
# A slot that was chosen for a request is not chosen for another one within so many seconds, while it looks idle.
CHOSEN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _IdleSlot:
    """An idle slot with ``tokens`` of the cache. ``task`` is higher the later it was used; ``seed``: of its request."""

    number: int
    tokens: int
    task: int
    seed: int | None


class IdleSlots:
    """The idle slots of one model server. Safe to use from many threads, and in tasks."""

    def __init__(self, client: ModelServerClient, cache: Callable[[], SharedCache | None]) -> None:
        self._client = client
        self._cache = cache
        self._lock = threading.Lock()
        # The seeds of the last requests, by their conversations: by them the slots are recognised.
        self._seeds: OrderedDict[Hashable, int] = OrderedDict()
        # The slots that requests were sent to, with the task that each had before, and when.
        self._chosen: dict[int, tuple[int, float]] = {}
        self._warned = False

    def note(self, conversation: Hashable, request: ChatPayload) -> None:
        """Note the request of a conversation that is sent."""
        seed = request.get("seed")
        if seed is None:
            return
        with self._lock:
            self._seeds[conversation] = seed
            self._seeds.move_to_end(conversation)
            if len(self._seeds) > MOST_CONVERSATIONS:
                self._seeds.popitem(last=False)

    def make_room(
        self, taken: int, need: int, request: ChatPayload, conversation: Hashable
    ) -> tuple[ChatPayload, bool]:
        """Clear idle slots until what is left in them fits into the cache, and choose the slot for a request.

        ``taken``: what all that run may need, this request with its ``need`` among them. Return the request with its
        slot, and whether any idle slot has more than its share.
        """
        cache = self._cache()
        if cache is None:
            return request, False
        try:
            idle = _read(self._client.get("/slots"))
        except (ApiError, KeyError, TypeError, ValueError):  # it may be loading: nothing is in its slots then
            return request, True
        own = self._choose(idle, request, conversation)
        if own is not None and own.tokens > need and self._clear(own):
            own.tokens = 0
        others = [slot for slot in sorted(self._unchosen(idle), key=lambda each: each.task) if slot is not own]
        for slot in others:
            if sum(each.tokens for each in others) > cache.tokens - taken and self._clear(slot):
                slot.tokens = 0
        if own is not None and "id_slot" not in request:
            request = request | {"id_slot": own.number}
        return request, any(slot.tokens > cache.share for slot in idle)

    def _choose(self, idle: list[_IdleSlot], request: ChatPayload, conversation: Hashable) -> _IdleSlot | None:
        """Return the slot that a request goes to: the one that it names, or that has its conversation, or else the one
        with the least in it. None: llama.cpp must choose."""
        now, number = time.monotonic(), request.get("id_slot", -1)
        if number >= 0:
            named = next((slot for slot in idle if slot.number == number), None)
            if named is not None:
                with self._lock:
                    self._chosen[number] = named.task, now
            return named
        if (request.get("n") or 1) > 1 or isinstance(request.get("prompt"), list):
            return None
        with self._lock:
            free = [slot for slot in idle if not self._is_chosen(slot, now)]
            seed = self._seeds.get(conversation)
            found = [slot for slot in free if seed is not None and slot.seed == seed and slot.tokens]
            chosen = max(found, key=lambda slot: slot.tokens, default=None) or min(
                free, key=lambda slot: (slot.tokens, slot.task), default=None
            )
            if chosen is not None:
                self._chosen[chosen.number] = chosen.task, now
        return chosen

    def _unchosen(self, idle: list[_IdleSlot]) -> list[_IdleSlot]:
        """Return the slots that no request is on its way to.

        What such a one has there is part of what it may need; and llama.cpp would clear its slot when it has ended.
        """
        now = time.monotonic()
        with self._lock:
            return [slot for slot in idle if not self._is_chosen(slot, now)]

    def _is_chosen(self, slot: _IdleSlot, now: float) -> bool:
        """Return whether a request is on its way to a slot, and has not come there yet."""
        task, chosen_at = self._chosen.get(slot.number, (None, 0.0))
        return slot.task == task and now - chosen_at < CHOSEN_SECONDS

    def _clear(self, slot: _IdleSlot) -> bool:
        """Clear a slot. Return whether it is clear now."""
        if not slot.tokens:
            return True
        try:
            self._client.query(f"/slots/{slot.number}?action=erase", {}, UpstreamCall())
        except ApiError as error:
            if not self._warned:
                log.warning("idle slots of the model server cannot be cleared: %s", error.message)
                self._warned = True
            return False
        return True


def _read(slots: Any) -> list[_IdleSlot]:
    """Return the idle slots of an answer to ``GET /slots``."""
    return [
        _IdleSlot(
            int(slot["id"]),
            int(slot.get("n_prompt_tokens") or 0),
            int(slot.get("id_task", -1)),
            (slot.get("params") or {}).get("seed"),
        )
        for slot in slots
        if not slot["is_processing"]
    ]
