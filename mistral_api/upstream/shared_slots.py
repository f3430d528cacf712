"""The slots of one model server for this process: its own, or those that the first API process has for all.

Which of both is decided here, once; whoever uses a gate or places a request does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mistral_api.ipc.siblings import ALONE, Siblings
from mistral_api.upstream.shared_slot_pool import RemoteSlotPool, offer_slot_pool
from mistral_api.upstream.shared_slot_table import RemoteSlotTable, offer_slot_table
from mistral_api.upstream.slot_gate import SlotGate
from mistral_api.upstream.slot_owners import SlotOwners
from mistral_api.upstream.slot_pool import OwnSlotPool
from mistral_api.upstream.slot_table import OwnSlotTable, RestoredSlots, note_nothing


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shares a model server: whether callers of several owners do, and whether strangers, which are processes that
    do not share our memory, each as of now; and our ``siblings``, which do."""

    several_owners: Callable[[], bool]
    strangers: Callable[[], bool]
    siblings: Siblings = ALONE

    @property
    def alone(self) -> Sharing:
        """The same without siblings, for a model server whose slots nobody waits for or chooses."""
        return replace(self, siblings=ALONE)


class SharedSlots:
    """Makes the gate and the table of the slots of one model server."""

    def __init__(
        self,
        server_name: str,
        slots: int | None,
        sharing: Sharing,
        cache_tokens: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``slots``: how many there are; None where nobody knows. ``cache_tokens`` returns the tokens of the cache that
        they share, None where each has its own."""
        self._name, self._slots, self._sharing = server_name, slots, sharing
        self._cache_tokens = cache_tokens

    def gate(self, longest_wait: float, most_waiting: int) -> SlotGate:
        """Return the gate to the slots. ``longest_wait``: in seconds; ``most_waiting``: in all processes together."""
        first, hub = self._sharing.siblings.first, self._sharing.siblings.hub
        if first is not None:
            remote = RemoteSlotPool(first, self._name, self._slots)
            return SlotGate(remote, longest_wait, catch_up=remote.catch_up)
        pool = OwnSlotPool(self._slots, most_waiting=most_waiting, cache_tokens=self._cache_tokens)
        if hub is None:
            return SlotGate(pool, longest_wait)
        offer_slot_pool(hub, self._name, pool)
        return SlotGate(pool, longest_wait, catch_up=hub.catch_up)

    def owners(
        self,
        process: Callable[[], object | None],
        has_prompt_cache: Callable[[], bool],
        restored: RestoredSlots | None = None,
    ) -> SlotOwners:
        """Return what chooses slots. ``process`` tells one process of the model server from the next;
        ``has_prompt_cache``: whether it has a cache of prompts that knows no slots."""
        sharing = self._sharing
        first, hub = sharing.siblings.first, sharing.siblings.hub
        if first is not None:
            return SlotOwners(RemoteSlotTable(first, self._name), process, sharing.several_owners)
        catch_up = note_nothing if hub is None else hub.catch_up
        table = OwnSlotTable(self._slots, has_prompt_cache, sharing.strangers, restored, catch_up=catch_up)
        if hub is not None:
            offer_slot_table(hub, self._name, table, process)
        return SlotOwners(table, process, sharing.several_owners)
