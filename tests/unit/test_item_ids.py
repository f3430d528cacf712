"""The id of an item contains the id of the message it is a view of."""

from __future__ import annotations

from uuid import UUID

import pytest

from mistral_api.conversations.item_renderer import ItemId, ItemIds, parse_item_id
from mistral_api.conversations.tool_items import CALL_TYPES, OUTPUT_TYPES
from mistral_api.errors import InvalidRequest
from mistral_api.system.identifiers import new_id

MESSAGE = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HEX = MESSAGE.hex


def test_item_ids_are_parsed_back() -> None:
    message_id = new_id()
    ids = ItemIds(message_id)
    assert parse_item_id(ids.message) == ItemId("message", message_id)
    assert parse_item_id(ids.reasoning) == ItemId("reasoning", message_id)
    assert parse_item_id(ids.call(12)) == ItemId("function_call", message_id, 12)
    for kind in (*OUTPUT_TYPES, "additional_tools", "agent_message"):
        assert parse_item_id(ids.of(kind)) == ItemId(kind, message_id)
    for kind in CALL_TYPES:
        assert parse_item_id(ids.call(1, kind)) == ItemId(kind, message_id, 1)


def test_item_ids_have_openais_prefixes() -> None:
    ids = ItemIds(MESSAGE)
    assert [ids.message, ids.reasoning, ids.call(0), ids.of("function_call_output")] == [
        f"msg_{HEX}",
        f"rs_{HEX}",
        f"fc_{HEX}_0",
        f"fco_{HEX}",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "msg_",
        HEX,
        f"msg_{MESSAGE}",
        f"msg_{HEX}_0",
        f"fc_{HEX}",
        f"fc_{HEX}_01",
        f"fc_{HEX}_-1",
        f"fc_{HEX}_9999999",
        f"item_{HEX}",
        f"msg_{HEX.upper()}",
        f"msg_{HEX}\n",
        "msg_\0",
    ],
)
def test_invalid_item_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_item_id(text, "after")
    assert (refused.value.code, refused.value.param) == ("invalid_value", "after")
