"""The arguments of queries: they arrive as text, and unknown ones do not matter."""

from __future__ import annotations

import math
import re
from typing import Any
from uuid import UUID

from marshmallow import EXCLUDE, Schema, fields

from mistral_api.schemas.fields import OneOf, Text, check_bounds, check_text
from mistral_api.schemas.issues import refuse
from mistral_api.schemas.sampling import valid_session_id

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
