"""The arguments of ``GET /v1/responses/{id}`` and of its list of input items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import fields

from mistral_api.schemas.issues import refuse
from mistral_api.schemas.queries import IntegerText, ItemListQuery, Query
from mistral_api.schemas.response_fields import Includes


class BooleanText(fields.Field[bool]):
    """``true`` or ``false``, from text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            refuse("invalid_type", "Invalid type for '{param}': expected a boolean.")
        return bool(value == "true")


class InputItemsQuery(ItemListQuery):
    """``GET /v1/responses/{id}/input_items``, newest first unless asked otherwise."""

    include = Includes()


class ResponseQuery(Query):
    """``GET /v1/responses/{id}``; ``starting_after`` is a ``sequence_number``."""

    stream = BooleanText(load_default=False)
    starting_after = IntegerText(0, 2**31 - 1)
    include = Includes()


def joined_arguments(arguments: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The arguments of a query, ``include`` as a list: clients repeat ``include`` or ``include[]``.

    ``arguments``: all values of each name, as werkzeug's ``request.args.to_dict(flat=False)`` gives them.
    """
    joined: dict[str, Any] = {name: values[0] for name, values in arguments.items()}
    joined.pop("include[]", None)
    include = [*arguments.get("include", ()), *arguments.get("include[]", ())]
    return joined | ({"include": include} if include else {})
