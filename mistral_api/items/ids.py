"""The ids of items: made from the id of the message they are a view of, so that they need no table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from mistral_api.errors import InvalidRequest
from mistral_api.schemas.issues import quote_value

_FORM = re.compile(r"(?P<kind>msg|rs|fco|fc)_(?P<message>[0-9a-f]{32})(?:_(?P<number>0|[1-9][0-9]{0,5}))?")
_KINDS = {
    "msg": "message",
    "rs": "reasoning",
    "fc": "function_call",
    "fco": "function_call_output",
}


@dataclass(frozen=True, slots=True)
class ItemIds:
    """The ids of the items that one stored message can make."""

    message_id: UUID

    @property
    def message(self) -> str:
        """The message item."""
        return f"msg_{self.message_id.hex}"

    @property
    def reasoning(self) -> str:
        """The reasoning that came before it."""
        return f"rs_{self.message_id.hex}"

    @property
    def output(self) -> str:
        """The output of a function: a message of the role ``tool``."""
        return f"fco_{self.message_id.hex}"

    def call(self, number: int) -> str:
        """One of its function calls, counted from 0."""
        return f"fc_{self.message_id.hex}_{number}"


@dataclass(frozen=True, slots=True)
class ItemId:
    """What an item's id says: the ``type`` of the item, its message, and which function call of it."""

    type: str
    message_id: UUID
    number: int = 0


def item_ids(message_id: UUID) -> ItemIds:
    """The ids of a message's items."""
    return ItemIds(message_id)


def parse_item_id(text: str, param: str = "item_id") -> ItemId:
    """Read an item's id. Raises InvalidRequest (``invalid_value``) for what is none of ours."""
    form = _FORM.fullmatch(text)
    if form is None or (form["number"] is None) == (form["kind"] == "fc"):
        raise InvalidRequest(
            f"Invalid '{param}': '{quote_value(text)}'. Expected the id of an item, which begins with "
            "'msg_', 'rs_', 'fc_' or 'fco_'.",
            code="invalid_value",
            param=param,
        )
    return ItemId(_KINDS[form["kind"]], UUID(hex=form["message"]), int(form["number"] or 0))
