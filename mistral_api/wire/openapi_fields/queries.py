"""The arguments of queries: what their text stands for."""

from __future__ import annotations

from mistral_api.wire import queries, sampling
from mistral_api.wire import queries as response_queries
from mistral_api.wire.json_schema import BOOLEAN, Shape, number, text
from mistral_api.wire.openapi_fields.registry import describes, fixed


@describes(queries.IntegerText)
def _integer(field: queries.IntegerText) -> Shape:
    return number("integer", field.low, field.high)


fixed(response_queries.BooleanText, BOOLEAN)
fixed(queries.SecondsText, number("number", 0, queries.LAST_SECOND) | {"description": "Unix seconds"})
fixed(queries.MessageId, {"type": "string", "format": "uuid"})
fixed(queries.SessionId, text(1, sampling.SESSION_ID_LENGTH, sampling.SESSION_ID.pattern))
fixed(queries.SearchText, text(1, 200))
