"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: what tells Anthropic's requests from OpenAI's.

Shapes are those of the ``anthropic`` package's ``MessageCreateParams``. What the two have in common is checked when
the request has become a chat completion request.
"""

from __future__ import annotations

import re
from typing import Any

from marshmallow import INCLUDE, Schema, validates_schema

from mistral_api.wire.anthropic_blocks import BLOCKS, check_blocks
from mistral_api.wire.constraints import check_schema
from mistral_api.wire.field_errors import refuse, refuse_missing, refuse_type
from mistral_api.wire.fields import (
    CheckedField,
    Integer,
    Text,
    check_array,
    check_boolean,
    check_bounds,
    check_choice,
    check_object,
    check_text,
)
from mistral_api.wire.messages import MOST_MESSAGES
from mistral_api.wire.sampling import STOPS
from mistral_api.wire.tools import MOST_TOOLS

_ROLES = ("user", "assistant", "system")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AnthropicMessages(CheckedField):
    """The messages, at least one."""

    def check(self, value: Any) -> None:
        """Refuse the first that is wrong."""
        check_array(value, 1, MOST_MESSAGES)
        for index, message in enumerate(value):
            _check_message(message, f"[{index}]")


def _check_message(message: Any, path: str) -> None:
    check_object(message, path)
    for name in ("role", "content"):
        if name not in message:
            refuse_missing(f"{path}.{name}")
    check_choice(message["role"], _ROLES, f"{path}.role")
    if not isinstance(message["content"], str):
        check_blocks(message["content"], BLOCKS[message["role"]], f"{path}.content")


class System(CheckedField):
    """A string, or blocks of text."""

    def check(self, value: Any) -> None:
        """Refuse what is neither."""
        if not isinstance(value, str):
            check_blocks(value, BLOCKS["system"], "")


class AnthropicTools(CheckedField):
    """The tools that the client runs itself; there are no others here."""

    def check(self, value: Any) -> None:
        """Refuse the first that is wrong, or hosted by Anthropic."""
        check_array(value, 0, MOST_TOOLS)
        for index, tool in enumerate(value):
            path = f"[{index}]"
            check_object(tool, path)
            if tool.get("type") not in (None, "custom"):
                text = (
                    "Unsupported value for '{param}': this server has no tools of its own, only those of type 'custom'."
                )
                refuse("not_supported", text, f"{path}.type")
            _check_tool(tool, path)


def _check_tool(tool: dict[str, Any], path: str) -> None:
    for name in ("name", "input_schema"):
        if name not in tool:
            refuse_missing(f"{path}.{name}")
    _check_name(tool["name"], f"{path}.name")
    check_schema(tool["input_schema"], f"{path}.input_schema")
    if tool.get("description") is not None:
        check_text(tool["description"], path=f"{path}.description")
    if tool.get("strict") is not None:
        check_boolean(tool["strict"], f"{path}.strict")


def _check_name(name: Any, path: str) -> None:
    check_text(name, 1, 64, path)
    if not _NAME.fullmatch(name):
        refuse("invalid_value", "Invalid '{param}': a tool's name has letters, digits, '_' and '-' only.", path)


class AnthropicToolChoice(CheckedField):
    """``{"type": "auto" | "any" | "tool" | "none", "name", "disable_parallel_tool_use"}``."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_object(value)
        if "type" not in value:
            refuse_missing(".type")
        check_choice(value["type"], ("auto", "any", "tool", "none"), ".type")
        if value["type"] == "tool":
            if "name" not in value:
                refuse_missing(".name")
            _check_name(value["name"], ".name")
        if value.get("disable_parallel_tool_use") is not None:
            check_boolean(value["disable_parallel_tool_use"], ".disable_parallel_tool_use")


class StopSequences(CheckedField):
    """Strings, none empty: llama.cpp would stop at once."""

    def check(self, value: Any) -> None:
        """Refuse what is none."""
        check_array(value, 0, STOPS)
        for index, item in enumerate(value):
            check_text(item, 1, path=f"[{index}]")


class Thinking(CheckedField):
    """``enabled`` with a budget, ``disabled``, or left to the model."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_object(value)
        check_choice(value.get("type", ""), ("enabled", "disabled", "adaptive", "between_tools"), ".type")
        if value["type"] != "enabled":
            return
        if "budget_tokens" not in value:
            refuse_missing(".budget_tokens")
        budget = value["budget_tokens"]
        if isinstance(budget, bool) or not isinstance(budget, int):
            refuse_type("an integer", budget, ".budget_tokens")
        check_bounds(budget, 0, 2**31 - 1, "integer", ".budget_tokens")


class OutputConfig(CheckedField):
    """``{"effort", "format": {"type": "json_schema", "schema"}}``."""

    def check(self, value: Any) -> None:
        """Refuse a format that is no schema."""
        check_object(value)
        if value.get("effort") is not None:
            check_choice(value["effort"], ("low", "medium", "high", "xhigh", "max"), ".effort")
        wanted = value.get("format")
        if wanted is None:
            return
        check_object(wanted, ".format")
        check_choice(wanted.get("type", ""), ("json_schema",), ".format.type")
        if "schema" not in wanted:
            refuse_missing(".format.schema")
        check_schema(wanted["schema"], ".format.schema")


class UserMetadata(CheckedField):
    """``{"user_id"}``."""

    def check(self, value: Any) -> None:
        """Refuse an id that is no string."""
        check_object(value)
        if value.get("user_id") is not None:
            check_text(value["user_id"], 0, 512, ".user_id")


class NoServers(CheckedField):
    """MCP servers are for Anthropic to call; nobody does that here."""

    def check(self, value: Any) -> None:
        """Refuse any."""
        check_array(value)
        if value:
            refuse("not_supported", "'{param}' is not supported: this server calls no MCP servers.")


class CountTokensRequest(Schema):
    """What both requests have."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    messages = AnthropicMessages(required=True)
    system = System()
    tools = AnthropicTools()
    tool_choice = AnthropicToolChoice()
    thinking = Thinking()
    output_config = OutputConfig()
    mcp_servers = NoServers()


class MessagesRequest(CountTokensRequest):
    """A message request."""

    max_tokens = Integer(1, 2**31 - 1, required=True)
    stop_sequences = StopSequences()
    metadata = UserMetadata()
    n = Integer(1, 1)

    @validates_schema
    def _choice_is_a_tool(self, data: dict[str, Any], **_options: Any) -> None:
        choice, tools = data.get("tool_choice") or {}, data.get("tools") or []
        if choice.get("type") == "any" and not tools:
            refuse("invalid_value", "'{param}' of type 'any' is only allowed with 'tools'.", field="tool_choice")
        if choice.get("type") == "tool" and choice["name"] not in [tool["name"] for tool in tools]:
            refuse("invalid_value", "'{param}' names a tool that is not in 'tools'.", field="tool_choice")
