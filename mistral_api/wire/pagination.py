"""Pages of lists, as OpenAI has them: cut from entries, as bodies, and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.errors import NotFound
from mistral_api.wire.object_shapes import Object, required
from mistral_api.wire.shapes import Array, Boolean, Constant, Nullable, Shape, Text

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


def page(entry: Shape) -> Shape:
    """Return the shape of a page of a list, with the ids of its ends."""
    return Object(
        required(
            object=Constant("list"),
            data=Array(entry),
            first_id=Nullable(Text()),
            last_id=Nullable(Text()),
            has_more=Boolean(),
        )
    )


def whole_list(entry: Shape) -> Shape:
    """Return the shape of a list that has no pages."""
    return Object(required(object=Constant("list"), data=Array(entry)))


def deleted(name: str) -> Shape:
    """Return the shape of the response to a deletion."""
    return Object(required(id=Text(), object=Constant(name), deleted=Constant(True)))
