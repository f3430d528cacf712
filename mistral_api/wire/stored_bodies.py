"""Shapes of the response bodies of conversations, items and responses, and of the events of a response's stream."""

from __future__ import annotations

from mistral_api.wire.container_shapes import Array, Map, Object, optional, required
from mistral_api.wire.pagination import deleted, page
from mistral_api.wire.shapes import (
    ANYTHING,
    COUNT,
    UNIX_SECONDS,
    AnyOf,
    Boolean,
    Component,
    Constant,
    Integer,
    Null,
    Nullable,
    Number,
    Shape,
    StringEnum,
    Text,
)

_METADATA = Map(ANYTHING, Text())

CONVERSATION_MESSAGE = Component(
    "ConversationMessage",
    Object(
        required(
            id=Text(),
            role=Text(),
            content=AnyOf(Text(), Array(), Null()),
            tool_calls=Nullable(Array(Object())),
            created_at=UNIX_SECONDS,
            model=Nullable(Text()),
            request_id=Nullable(Text()),
            status=StringEnum("complete", "interrupted", "failed"),
            usage=Nullable(
                Object(
                    required(
                        prompt_tokens=Nullable(COUNT),
                        completion_tokens=Nullable(COUNT),
                        total_tokens=COUNT,
                    )
                )
            ),
        ),
        optional(sent=Object(optional(system=Array(Object()), summary=Array(Object()), answer=Object()))),
    ),
)
_HEAD = required(
    id=Text(),
    object=Constant("conversation"),
    session_id=Text(),
    title=Nullable(Text()),
    metadata=_METADATA,
    created_at=UNIX_SECONDS,
    updated_at=UNIX_SECONDS,
)
CONVERSATION = Component("Conversation", Object(_HEAD, required(message_count=COUNT)))
CONVERSATION_WITH_MESSAGES = Component(
    "ConversationWithMessages",
    Object(
        _HEAD,
        required(
            messages=Array(CONVERSATION_MESSAGE),
            has_more=Boolean(),
            first_id=Nullable(Text()),
            last_id=Nullable(Text()),
        ),
    ),
)
# ``snippet`` is HTML. A hit in the title has no message.
SEARCH_MATCH = Component(
    "SearchMatch", Object(required(message_id=Nullable(Text()), role=Nullable(Text()), snippet=Text()))
)
LISTED_CONVERSATION = Component(
    "ListedConversation",
    Object(_HEAD, required(message_count=COUNT), optional(matches=Array(SEARCH_MATCH))),
)
CONVERSATION_PAGE = Component("ConversationPage", page(LISTED_CONVERSATION))
CONVERSATION_DELETED = Component("ConversationDeleted", deleted("conversation.deleted"))

_COMMON = required(id=Text(), status=StringEnum("in_progress", "completed", "incomplete", "failed"))
_REASONING_TEXT = Object(required(type=Constant("reasoning_text"), text=Text()))
_CALL_ID, _OUTPUT, _TOOLS = Text(), AnyOf(Text(), Array(Object())), Array(Object())
# The calls of tools and their outputs, by their types.
_TOOL_ITEMS: dict[str, dict[str, Shape]] = {
    "function_call": {"call_id": _CALL_ID, "name": Text(), "arguments": Text()},
    "function_call_output": {"call_id": _CALL_ID, "output": _OUTPUT},
    "custom_tool_call": {"call_id": _CALL_ID, "name": Text(), "input": Text()},
    "custom_tool_call_output": {"call_id": _CALL_ID, "output": _OUTPUT},
    "shell_call": {"call_id": _CALL_ID, "action": Object(required(commands=Array(Text())))},
    "shell_call_output": {"call_id": _CALL_ID, "output": Array(Object())},
    "local_shell_call": {"call_id": _CALL_ID, "action": Object(required(command=Array(Text())))},
    "local_shell_call_output": {"call_id": _CALL_ID, "output": _OUTPUT},
    "apply_patch_call": {"call_id": _CALL_ID, "operation": Object(required(type=Text(), path=Text()))},
    "apply_patch_call_output": {"call_id": _CALL_ID},
    "tool_search_call": {"call_id": _CALL_ID, "execution": Text(), "arguments": ANYTHING},
    "tool_search_output": {"call_id": _CALL_ID, "tools": _TOOLS},
}
ITEM = Component(
    "Item",
    AnyOf(
        Object(
            _COMMON,
            required(type=Constant("message"), role=Text(), content=Array(Object(required(type=Text())))),
        ),
        Object(
            _COMMON,
            required(type=Constant("reasoning"), summary=Array(Object()), content=Array(_REASONING_TEXT)),
        ),
        *(Object(_COMMON, required(type=Constant(kind), **fields)) for kind, fields in _TOOL_ITEMS.items()),
        Object(required(type=Constant("additional_tools"), id=Text(), role=Text(), tools=_TOOLS)),
        Object(
            required(
                type=Constant("agent_message"), id=Text(), author=Text(), recipient=Text(), content=Array(Object())
            )
        ),
    ),
)
ITEM_PAGE = Component("ItemPage", page(ITEM))

_USAGE = Object(
    required(
        input_tokens=COUNT,
        input_tokens_details=Object(required(cached_tokens=COUNT, cache_write_tokens=COUNT)),
        output_tokens=COUNT,
        output_tokens_details=Object(required(reasoning_tokens=COUNT)),
        total_tokens=COUNT,
    )
)
RESPONSE = Component(
    "Response",
    Object(
        required(
            id=Text(),
            object=Constant("response"),
            created_at=UNIX_SECONDS,
            completed_at=Nullable(UNIX_SECONDS),
            status=StringEnum("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
            error=Nullable(Object(required(code=Text(), message=Text()))),
            incomplete_details=Nullable(Object(required(reason=Text()))),
            model=Text(),
            output=Array(ITEM),
            conversation=Nullable(Object(required(id=Text()))),
            background=Boolean(),
            instructions=Nullable(Text()),
            max_output_tokens=Nullable(Integer()),
            max_tool_calls=Nullable(Integer()),
            metadata=_METADATA,
            parallel_tool_calls=Boolean(),
            previous_response_id=Nullable(Text()),
            prompt_cache_key=Nullable(Text()),
            reasoning=Object(),
            safety_identifier=Nullable(Text()),
            service_tier=Text(),
            store=Boolean(),
            temperature=Number(),
            text=Object(),
            tool_choice=AnyOf(Text(), Object()),
            tools=Array(Object()),
            top_logprobs=Integer(),
            top_p=Number(),
            truncation=Text(),
            usage=Nullable(_USAGE),
            user=Nullable(Text()),
        ),
        optional(session_id=Text()),
    ),
)
RESPONSE_EVENT = Component("ResponseEvent", Object(required(type=Text(), sequence_number=COUNT)))
RESPONSE_DELETED = Component("ResponseDeleted", deleted("response"))
INPUT_TOKENS = Component("InputTokens", Object(required(object=Constant("response.input_tokens"), input_tokens=COUNT)))
