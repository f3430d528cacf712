"""The arguments of ``GET /v1/responses/{id}`` and of lists of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import fields

from mistral_api.schemas.fields import check_choice, check_text
from mistral_api.schemas.issues import refuse
from mistral_api.schemas.queries import IntegerText, Query
from mistral_api.schemas.response_fields import Includes


class BooleanText(fields.Field[bool]):
    """``true`` or ``false``, from text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            refuse("invalid_type", "Invalid type for '{param}': expected a boolean.")
        return bool(value == "true")


class OrderText(fields.Field[str]):
    """``asc`` or ``desc``."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        check_choice(value, ("asc", "desc"))
        return str(value)


class ItemIdText(fields.Field[str]):
    """The id of an item; whether there is one is not known here."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        check_text(value, 1, 128)
        return str(value)


class ItemListQuery(Query):
    """``GET /v1/responses/{id}/input_items``, newest first unless asked otherwise."""

    limit = IntegerText(1, 100, load_default=20)
    order = OrderText(load_default="desc")
    after = ItemIdText()
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
