"""The tools that a request does not declare but loads: items of its input bring them, or messages that are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mistral_api.generation.custom_inputs import input_constraints
from mistral_api.generation.tool_catalogue import stored_tools
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Item, ResponsePayload, ResponseTool
from mistral_api.wire.constraint_places import Constraint, PlacedSchema, find_schemas
from mistral_api.wire.items import item_type
from mistral_api.wire.response_tools import tools_in_items

# The fields by which a request says what it continues.
_CONTINUED = ("previous_response_id", "session_id")


def loaded_constraints(
    request: ResponsePayload, sent: Sequence[Item], resolved: Sequence[Item], stored: Iterable[ChatMessage]
) -> list[PlacedSchema | Constraint]:
    """Return what the tools that a valid request loads have enforced, but for the schemas that its body holds.

    ``resolved``: the ``sent`` items, with those that are stored in the place of references. ``stored``: the messages
    that it continues. The path of their tools begins with the field that names these, or with ``conversation``.
    """
    of_input = _of_items(sent, resolved)
    tools = [tool for message in stored for tool in stored_tools(message)]
    place = next((name for name in _CONTINUED if name in request), "conversation")
    return [*of_input, *(_stored_constraints(tools, place) if tools else ())]


def _of_items(sent: Sequence[Item], resolved: Sequence[Item]) -> Iterator[PlacedSchema | Constraint]:
    for index, (before, item) in enumerate(zip(sent, resolved, strict=True)):
        tools = tools_in_items([item])
        if tools:
            is_stored = item_type(before) == "item_reference"
            place = f"input[{index}]"
            yield from _stored_constraints(tools, place) if is_stored else input_constraints(tools, f"{place}.tools")


def _stored_constraints(tools: Sequence[ResponseTool], place: str) -> list[PlacedSchema | Constraint]:
    schemas = [replace(found, path=f"{place}.{found.path}") for found in find_schemas({"tools": tools})]
    return [*schemas, *input_constraints(tools, f"{place}.tools")]
