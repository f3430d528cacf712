"""Lists and deletions, whatever they are of."""

from __future__ import annotations

from mistral_api.openapi.shapes import BOOLEAN, TEXT, Shape, array, nullable, only, record


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
