"""Pages of lists and deletions, as OpenAI has them.

Pages of lists, as OpenAI's lists have them.

Lists and deletions, whatever they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.errors import NotFound
from mistral_api.wire.json_schema import BOOLEAN, TEXT, Shape, array, nullable, only, record

Entry = dict[str, Any]


def page_of(entries: Sequence[Entry], query: dict[str, Any], missing: str) -> tuple[list[Entry], bool]:
    """A page of entries that are all there, oldest first, and whether more follow.

    ``query`` holds ``limit``, ``order`` (``asc`` or ``desc``) and maybe ``after`` (an entry's id). Raises NotFound
    for an unknown one, in the words of ``missing`` with the id in the place of ``{}``.
    """
    ordered = list(entries) if query["order"] == "asc" else list(reversed(entries))
    if query.get("after") is not None:
        ids = [entry["id"] for entry in ordered]
        if query["after"] not in ids:
            raise NotFound(missing.format(query["after"][:100]), param="after")
        ordered = ordered[ids.index(query["after"]) + 1 :]
    return ordered[: query["limit"]], len(ordered) > query["limit"]


def list_body(data: list[Entry], has_more: bool, *, key: str = "id", none: str | None = None) -> Entry:
    """The list object of a page; ``key`` is what an entry is named by, ``none`` stands for the ids of an empty page."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0][key] if data else none,
        "last_id": data[-1][key] if data else none,
        "has_more": has_more,
    }


def page(of: Shape) -> Shape:
    """A page of a list, with the ids of its ends."""
    return record(
        {
            "object": only("list"),
            "data": array(of),
            "first_id": nullable(TEXT),
            "last_id": nullable(TEXT),
            "has_more": BOOLEAN,
        }
    )


def whole(of: Shape) -> Shape:
    """A list that has no pages."""
    return record({"object": only("list"), "data": array(of)})


def deleted(name: str) -> Shape:
    """What is answered of something that was deleted."""
    return record({"id": TEXT, "object": only(name), "deleted": only(True)})
