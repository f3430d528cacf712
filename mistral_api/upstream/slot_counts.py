"""How many slots a model server has, and how many of them are busy, for ``/health``."""

from __future__ import annotations

import re

from mistral_api.errors import ModelServerError
from mistral_api.upstream.client import ModelServerClient

# For connecting and for each silence, in seconds; and the most that llama.cpp's metrics take.
DEADLINES, MOST_BYTES = (0.5, 1.5), 1 << 20
_BUSY = re.compile(r"^llamacpp:requests_processing (\S+)$", re.MULTILINE)


def count_slots(client: ModelServerClient, *, may_sleep: bool = False) -> dict[str, int] | None:
    """Return ``total`` and ``busy``; None for engines that do not tell.

    ``may_sleep``: whether the server unloads its model when it is idle (``--sleep-idle-seconds``). A question about its
    slots would wake it, or keep it awake; it answers ``/props`` and ``/metrics`` in its sleep.
    """
    try:
        return _count_without_waking(client) if may_sleep else _count(client)
    except ModelServerError:
        return None


def _count(client: ModelServerClient) -> dict[str, int] | None:
    slots = client.get("/slots")
    if not isinstance(slots, list):
        return None
    return {"total": len(slots), "busy": sum(bool(slot.get("is_processing")) for slot in slots)}


def _count_without_waking(client: ModelServerClient) -> dict[str, int] | None:
    props = client.get("/props")
    total = props.get("total_slots") if isinstance(props, dict) else None
    busy = _BUSY.search(client.get_text("/metrics", DEADLINES, MOST_BYTES))
    return {"total": total, "busy": int(float(busy[1]))} if isinstance(total, int) and busy else None
