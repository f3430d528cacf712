"""A page of a list of items that is all there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.errors import NotFound
from mistral_api.items.outgoing import Item


def page_of(items: Sequence[Item], query: dict[str, Any]) -> tuple[list[Item], bool]:
    """A page of items that come oldest first, and whether more follow.

    ``query`` holds ``limit``, ``order`` (``asc`` or ``desc``) and maybe ``after`` (an item's id). Raises NotFound
    for an unknown one.
    """
    ordered = list(items) if query["order"] == "asc" else list(reversed(items))
    if query.get("after") is not None:
        ids = [item["id"] for item in ordered]
        if query["after"] not in ids:
            raise NotFound(f"Item with id '{query['after'][:100]}' not found.", param="after")
        ordered = ordered[ids.index(query["after"]) + 1 :]
    return ordered[: query["limit"]], len(ordered) > query["limit"]
