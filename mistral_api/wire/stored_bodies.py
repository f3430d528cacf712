"""Response shapes of conversations, items, responses and their events.

Conversations, their messages and their items.

Responses and the events of their streams.
"""

from __future__ import annotations

from mistral_api.wire.json_schema import (
    ANYTHING,
    BOOLEAN,
    COUNT,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    UNIX_SECONDS,
    Shape,
    array,
    either,
    nullable,
    only,
    record,
    ref,
    words,
)
from mistral_api.wire.pagination import deleted, page

_METADATA = {"type": "object", "additionalProperties": TEXT}
_HEAD: dict[str, Shape] = {
    "id": TEXT,
    "object": only("conversation"),
    "session_id": TEXT,
    "title": nullable(TEXT),
    "metadata": _METADATA,
    "created_at": UNIX_SECONDS,
    "updated_at": UNIX_SECONDS,
}
_STATUS = words("in_progress", "completed", "incomplete")
_ITEM: dict[str, Shape] = {"id": TEXT, "status": _STATUS}

CONVERSATION_COMPONENTS: dict[str, Shape] = {
    "ConversationMessage": record(
        {
            "id": TEXT,
            "role": TEXT,
            "content": either(TEXT, array(ANYTHING), {"type": "null"}),
            "tool_calls": nullable(array(OBJECT)),
            "created_at": UNIX_SECONDS,
            "model": nullable(TEXT),
            "request_id": nullable(TEXT),
            "status": words("complete", "interrupted", "failed"),
            "usage": nullable(
                record(
                    {
                        "prompt_tokens": nullable(COUNT),
                        "completion_tokens": nullable(COUNT),
                        "total_tokens": COUNT,
                    }
                )
            ),
        }
    ),
    "Conversation": record(_HEAD | {"message_count": COUNT}),
    "ConversationWithMessages": record(
        {
            **_HEAD,
            "messages": array(ref("ConversationMessage")),
            "has_more": BOOLEAN,
            "first_id": nullable(TEXT),
            "last_id": nullable(TEXT),
        }
    ),
    "ConversationPage": page(ref("Conversation")),
    "ConversationDeleted": deleted("conversation.deleted"),
    "Item": either(
        record({**_ITEM, "type": only("message"), "role": TEXT, "content": array(record({"type": TEXT}))}),
        record(
            {
                **_ITEM,
                "type": only("reasoning"),
                "summary": array(OBJECT),
                "content": array(record({"type": only("reasoning_text"), "text": TEXT})),
            }
        ),
        record({**_ITEM, "type": only("function_call"), "call_id": TEXT, "name": TEXT, "arguments": TEXT}),
        record({**_ITEM, "type": only("function_call_output"), "call_id": TEXT, "output": either(TEXT, array(OBJECT))}),
    ),
    "ItemPage": page(ref("Item")),
}


RESPONSE_COMPONENTS: dict[str, Shape] = {
    "Response": record(
        {
            "id": TEXT,
            "object": only("response"),
            "created_at": UNIX_SECONDS,
            "completed_at": nullable(UNIX_SECONDS),
            "status": words("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
            "error": nullable(record({"code": TEXT, "message": TEXT})),
            "incomplete_details": nullable(record({"reason": TEXT})),
            "model": TEXT,
            "output": array(ref("Item")),
            "conversation": nullable(record({"id": TEXT})),
            "background": BOOLEAN,
            "instructions": nullable(TEXT),
            "max_output_tokens": nullable(INTEGER),
            "max_tool_calls": nullable(INTEGER),
            "metadata": {"type": "object", "additionalProperties": TEXT},
            "parallel_tool_calls": BOOLEAN,
            "previous_response_id": nullable(TEXT),
            "prompt_cache_key": nullable(TEXT),
            "reasoning": OBJECT,
            "safety_identifier": nullable(TEXT),
            "service_tier": TEXT,
            "store": BOOLEAN,
            "temperature": NUMBER,
            "text": OBJECT,
            "tool_choice": either(TEXT, OBJECT),
            "tools": array(OBJECT),
            "top_logprobs": INTEGER,
            "top_p": NUMBER,
            "truncation": TEXT,
            "usage": nullable(
                record(
                    {
                        "input_tokens": COUNT,
                        "input_tokens_details": record({"cached_tokens": COUNT, "cache_write_tokens": COUNT}),
                        "output_tokens": COUNT,
                        "output_tokens_details": record({"reasoning_tokens": COUNT}),
                        "total_tokens": COUNT,
                    }
                )
            ),
            "user": nullable(TEXT),
        },
        {"session_id": TEXT},
    ),
    "ResponseEvent": record({"type": TEXT, "sequence_number": COUNT}),
    "ResponseDeleted": deleted("response"),
    "InputTokens": record({"object": only("response.input_tokens"), "input_tokens": COUNT}),
}
