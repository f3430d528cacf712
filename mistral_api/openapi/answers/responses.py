"""Responses and the events of their streams."""

from __future__ import annotations

from mistral_api.openapi.answers.lists import deleted
from mistral_api.openapi.shapes import (
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
