"""Gates to the slots of a model server, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable

from mistral_api.upstream.slot_gate import SlotGate
from mistral_api.upstream.slot_pool import OwnSlotPool


def own_gate(
    slots: int | None,
    longest_wait: float,
    *,
    most_waiting: int = 4096,
    clock: Callable[[], float] = time.monotonic,
) -> SlotGate:
    """Return a gate to the slots of this process alone."""
    return SlotGate(OwnSlotPool(slots, most_waiting=most_waiting, clock=clock), longest_wait, clock=clock)
