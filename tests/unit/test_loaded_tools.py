"""What tools that are loaded have enforced: by the path at which the request, or the conversation, has them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from mistral_api.responses.loaded_tools import loaded_constraints
from mistral_api.wire.constraint_places import PlacedSchema

LOOK: Any = {"type": "function", "name": "look", "strict": True, "parameters": {"type": "object"}}
# No schema says the first one.
NEST: Any = {
    "type": "custom",
    "name": "nest",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "(" start ")" | "x"'},
}
SUM: Any = {"type": "custom", "name": "sum", "format": {"type": "grammar", "syntax": "regex", "definition": "1|2"}}
LOADED: Any = {"type": "additional_tools", "role": "developer", "tools": [LOOK, NEST]}
FOUND: Any = {"type": "tool_search_output", "tools": [{"type": "namespace", "name": "n", "tools": [LOOK, SUM]}]}
HELLO: Any = {"type": "message", "role": "user", "content": "Hello"}


def _stored(item: Any) -> Any:
    return {"role": "developer", "item": item["type"], "content": orjson.dumps({"tools": item["tools"]}).decode()}


def test_grammars_of_items_are_found_beside_the_schemas_that_the_body_holds() -> None:
    found = loaded_constraints({}, [HELLO, LOADED, FOUND], [HELLO, LOADED, FOUND], [])
    assert [each.path for each in found] == ["input[1].tools[1].format", "input[2].tools[0].tools[1].format"]


def test_schemas_of_items_that_are_stored_are_found() -> None:
    reference: Any = {"type": "item_reference", "id": "x"}
    found = loaded_constraints({}, [HELLO, reference], [HELLO, LOADED], [])
    assert [each.path for each in found] == ["input[1].tools[0].parameters", "input[1].tools[1].format"]


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"session_id": "s"}, "session_id"),
        ({}, "conversation"),
    ],
)
def test_tools_of_stored_messages_are_named_by_what_is_continued(request_: Any, place: str) -> None:
    stored = [{"role": "user", "content": "Hi"}, _stored(LOADED), _stored(FOUND)]
    found = loaded_constraints(request_, [HELLO], [HELLO], stored)
    paths = ["tools[0].parameters", "tools[2].tools[0].parameters", "tools[1].format", "tools[2].tools[1].format"]
    assert [each.path for each in found] == [f"{place}.{path}" for path in paths]
    schemas = [each for each in found if isinstance(each, PlacedSchema)]
    assert [(each.of_tool, each.strict) for each in schemas] == [(True, True), (True, True), (True, False)]
