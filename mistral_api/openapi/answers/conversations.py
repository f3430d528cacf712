"""Conversations, their messages and their items."""

from __future__ import annotations

from mistral_api.openapi.answers.lists import deleted, page
from mistral_api.openapi.shapes import (
    ANYTHING,
    BOOLEAN,
    COUNT,
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
