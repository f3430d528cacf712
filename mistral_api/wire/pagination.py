"""Pages of lists and deletions as OpenAI has them: how a page is cut, its body, and the shapes of such bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, Required, TypedDict, TypeVar

from mistral_api.errors import NotFound
from mistral_api.wire.container_shapes import Array, Object, required
from mistral_api.wire.shapes import Boolean, Constant, Nullable, Shape, Text

EntryT = TypeVar("EntryT", bound=Mapping[str, Any])


class PageFilter(TypedDict, total=False):
    """Which page of a list: ``order`` is ``asc`` or ``desc`` by time, ``after`` the id of the entry before the page."""

    limit: Required[int]
    order: Required[str]
    after: str


class Page(TypedDict, Generic[EntryT]):
    """A page of a list, with the ids of its ends."""

    object: Literal["list"]
    data: list[EntryT]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deletion(TypedDict):
    """What a client is told of a deletion."""

    id: str
    object: str
    deleted: Literal[True]


def page_of(entries: Sequence[EntryT], query: PageFilter, missing: str) -> tuple[list[EntryT], bool]:
    """Return a page of ``entries``, which are all of a list, oldest first, and whether more follow.

    Raises NotFound for an unknown id ``after``, with the text ``missing`` in which the id replaces ``{}``.
    """
    ordered = list(entries) if query["order"] == "asc" else list(reversed(entries))
    if query.get("after") is not None:
        ids = [entry["id"] for entry in ordered]
        if query["after"] not in ids:
            raise NotFound(missing.format(query["after"][:100]), param="after")
        ordered = ordered[ids.index(query["after"]) + 1 :]
    return ordered[: query["limit"]], len(ordered) > query["limit"]


def list_body(data: list[EntryT], has_more: bool, *, key: str = "id", none: str | None = None) -> Page[EntryT]:
    """Return the list object of a page.

    ``key`` is the field of an entry that holds its id; ``none`` stands for the ids of an empty page.
    """
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
