"""Query arguments.

The arguments of queries: they arrive as text, and unknown ones do not matter.

The arguments of ``GET /v1/responses/{id}`` and of its list of input items.

The queries of lists of stored chat completions and their messages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from marshmallow import EXCLUDE, Schema, fields, pre_load

from mistral_api.wire.conversations import StoredMetadata
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.fields import OneOf, Text, check_bounds, check_text
from mistral_api.wire.response_fields import Includes
from mistral_api.wire.sampling import valid_session_id

# int() would also take spaces, underscores and the digits of other scripts.
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
# The years that PostgreSQL and Python can both tell.
LAST_SECOND = 253_402_300_799


class IntegerText(fields.Field[int]):
    """A whole number within bounds, from text."""

    def __init__(self, low: int, high: int, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not _INTEGER.fullmatch(value):
            refuse("invalid_type", "Invalid type for '{param}': expected an integer.")
        number = int(value)
        check_bounds(number, self.low, self.high, "integer")
        return number


class SecondsText(fields.Field[float]):
    """A moment in Unix seconds, from text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        try:
            moment = float(value)
        except ValueError:
            moment = math.nan
        if not math.isfinite(moment):
            refuse("invalid_type", "Invalid type for '{param}': expected Unix seconds.")
        check_bounds(moment, 0, LAST_SECOND, "decimal")
        return moment


class MessageId(fields.Field[UUID]):
    """The id of a message, from text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> UUID:
        try:
            return UUID(value)
        except ValueError:
            refuse("invalid_value", "Invalid '{param}': expected the id of a message.")


class SessionId(fields.Field[str]):
    """A session id, from text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not valid_session_id(value):
            refuse("invalid_value", "Invalid '{param}': expected the id of a session.")
        return str(value)


class SearchText(fields.Field[str]):
    """Words to look for."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        check_text(value, 1, 200)
        return str(value).replace("\0", "")


class Query(Schema):
    """The base of all queries."""

    class Meta:
        unknown = EXCLUDE


class ConversationQuery(Query):
    """``GET /v1/conversations/{session_id}``."""

    limit = IntegerText(1, 500, load_default=50)
    before = MessageId()
    after = MessageId()


class ConversationListQuery(Query):
    """``GET /v1/conversations``."""

    limit = IntegerText(1, 100, load_default=20)
    after = SessionId()
    q = SearchText()
    since = SecondsText()


class ItemListQuery(Query):
    """Lists of items: ``GET /v1/conversations/{id}/items`` and its like."""

    limit = IntegerText(1, 100, load_default=20)
    order = OneOf("asc", "desc", load_default="desc")
    after = Text(1)


class StatsQuery(Query):
    """``GET /v1/stats``."""

    hours = IntegerText(1, 8760, load_default=24)


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


_PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)
LONGEST_NAME = 256


_WITHOUT_NUL = re.compile(r"[^\0]*", re.DOTALL)


class Name(Text):
    """An id or a name; PostgreSQL knows none with a NUL character."""

    def __init__(self, **options: Any) -> None:
        super().__init__(1, LONGEST_NAME, _WITHOUT_NUL, **options)


class PageQuery(Query):
    """A page of a list, oldest first unless asked otherwise."""

    limit = IntegerText(1, 100, load_default=20)
    order = OneOf("asc", "desc", load_default="asc")
    after = Name()


class CompletionListQuery(PageQuery):
    """``GET /v1/chat/completions``; pairs of metadata come as ``metadata[key]=value``."""

    model = Name()
    metadata = StoredMetadata()

    @pre_load
    def _gather(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        """Make one object of the pairs."""
        found = {name: _PAIR.fullmatch(name) for name in data}
        pairs = {match.group(1): data[name] for name, match in found.items() if match}
        rest = {name: value for name, value in data.items() if not found[name]}
        return rest | {"metadata": pairs} if pairs else rest
