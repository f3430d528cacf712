"""The queries of lists of stored chat completions and their messages."""

from __future__ import annotations

import re
from typing import Any

from marshmallow import pre_load

from mistral_api.schemas.conversations import StoredMetadata
from mistral_api.schemas.fields import OneOf, Text
from mistral_api.schemas.queries import IntegerText, Query

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
