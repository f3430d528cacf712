"""The arguments of queries. They arrive as text; unknown ones do not matter."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Required, TypedDict
from uuid import UUID

from marshmallow import EXCLUDE

from mistral_api.payload_types import JsonObject, PayloadT
from mistral_api.wire.conversations import STORED_METADATA, WITHOUT_NUL
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.pagination import PageFilter
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.responses import INCLUDE
from mistral_api.wire.sampling import SESSION_ID, SESSION_ID_LENGTH, valid_session_id
from mistral_api.wire.shapes import INT32_MAX, Boolean, Integer, Number, Parsed, Shape, StringEnum, Text, pass_anything

# The years that PostgreSQL and Python can both represent.
LAST_SECOND = 253_402_300_799
LONGEST_NAME = 256

# int() would also take spaces, underscores and the digits of other scripts.
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_METADATA_PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        refuse("invalid_type", "Invalid type for '{param}': expected an integer.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        moment = float(text)
    except ValueError:
        moment = math.nan
    if not math.isfinite(moment):
        refuse("invalid_type", "Invalid type for '{param}': expected Unix seconds.")
    return moment


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        refuse("invalid_type", "Invalid type for '{param}': expected a boolean.")
    return text == "true"


def _message_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        refuse("invalid_value", "Invalid '{param}': expected the id of a message.")


def _check_session_id(text: str) -> None:
    if not valid_session_id(text):
        refuse("invalid_value", "Invalid '{param}': expected the id of a session.")


def _integer_text(low: int, high: int) -> Shape:
    return Parsed(_integer, Integer(low, high))


def _without_nul(text: str) -> str:
    return text.replace("\0", "")


_SECONDS = Parsed(_seconds, Number(0, LAST_SECOND)).with_keywords(description="Unix seconds")
_MESSAGE_ID = Parsed(_message_id, Shape(pass_anything, {"type": "string", "format": "uuid"}, UUID))
_SESSION_ID = Shape(_check_session_id, Text(1, SESSION_ID_LENGTH, SESSION_ID).json_schema, str)
_SEARCH = Text(1, 200).converted(_without_nul)
# An id or a name; PostgreSQL knows none with a NUL character.
_NAME = Text(1, LONGEST_NAME, WITHOUT_NUL)


class Query(RequestSchema[PayloadT]):
    """The base of all queries."""

    class Meta:
        unknown = EXCLUDE


class MessagePageFilter(TypedDict, total=False):
    """Which page of a branch: the messages next ``before`` or ``after`` one of it, else the newest."""

    limit: Required[int]
    before: UUID
    after: UUID


class ConversationFilter(TypedDict, total=False):
    """Which page of the list: after the session ``after``, with the words ``q``, used ``since`` (Unix seconds)."""

    limit: Required[int]
    after: str
    q: str
    since: float


class CompletionFilter(PageFilter, total=False):
    """Which stored completions too: of a ``model``, and with all pairs of ``metadata``."""

    model: str
    metadata: dict[str, str]


class ResponseForm(TypedDict, total=False):
    """Whether a response is asked for as a stream, and after which event that begins."""

    stream: Required[bool]
    starting_after: int


class StatsRange(TypedDict):
    """How many hours of statistics."""

    hours: int


class ConversationQuery(Query[MessagePageFilter]):
    """``GET /v1/conversations/{session_id}``."""

    limit = Field(_integer_text(1, 500), load_default=50)
    before = Field(_MESSAGE_ID)
    after = Field(_MESSAGE_ID)


class ConversationListQuery(Query[ConversationFilter]):
    """``GET /v1/conversations``."""

    limit = Field(_integer_text(1, 100), load_default=20)
    after = Field(_SESSION_ID)
    q = Field(_SEARCH)
    since = Field(_SECONDS)


class ItemListQuery(Query[PageFilter]):
    """Lists of items: ``GET /v1/conversations/{id}/items`` and its like."""

    limit = Field(_integer_text(1, 100), load_default=20)
    order = Field(StringEnum("asc", "desc"), load_default="desc")
    after = Field(Text(1))


class InputItemsQuery(ItemListQuery):
    """``GET /v1/responses/{id}/input_items``, newest first unless asked otherwise."""

    include = Field(INCLUDE)


class ResponseQuery(Query[ResponseForm]):
    """``GET /v1/responses/{id}``; ``starting_after`` is a ``sequence_number``."""

    stream = Field(Parsed(_boolean, Boolean()), load_default=False)
    starting_after = Field(_integer_text(0, INT32_MAX))
    include = Field(INCLUDE)


class StatsQuery(Query[StatsRange]):
    """``GET /v1/stats``."""

    hours = Field(_integer_text(1, 8760), load_default=24)


class _OldestFirstQuery(Query[PayloadT]):
    """A page of a list, oldest first unless asked otherwise."""

    limit = Field(_integer_text(1, 100), load_default=20)
    order = Field(StringEnum("asc", "desc"), load_default="asc")
    after = Field(_NAME)


class PageQuery(_OldestFirstQuery[PageFilter]):
    """A page of a list."""


class CompletionListQuery(_OldestFirstQuery[CompletionFilter]):
    """``GET /v1/chat/completions``; pairs of metadata come as ``metadata[key]=value``."""

    model = Field(_NAME)
    metadata = Field(STORED_METADATA)


def gathered_metadata(arguments: Mapping[str, str]) -> JsonObject:
    """Return the arguments of a query with one object made of the pairs of metadata, as CompletionListQuery has it."""
    found = {name: _METADATA_PAIR.fullmatch(name) for name in arguments}
    pairs = {match.group(1): arguments[name] for name, match in found.items() if match}
    rest: JsonObject = {name: value for name, value in arguments.items() if not found[name]}
    return rest | {"metadata": pairs} if pairs else rest


def joined_arguments(arguments: Mapping[str, Sequence[str]]) -> JsonObject:
    """Return the arguments of a query, ``include`` as a list: clients repeat ``include`` or ``include[]``.

    ``arguments``: all values of each name, as werkzeug's ``request.args.to_dict(flat=False)`` gives them.
    """
    joined: JsonObject = {name: values[0] for name, values in arguments.items()}
    joined.pop("include[]", None)
    include = [*arguments.get("include", ()), *arguments.get("include[]", ())]
    return joined | ({"include": include} if include else {})
