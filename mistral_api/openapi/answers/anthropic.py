"""Anthropic's messages, events, counts and errors."""

from __future__ import annotations

from mistral_api.openapi.shapes import COUNT, FILLED, OBJECT, TEXT, Shape, array, either, nullable, only, record

_BLOCK = either(
    record({"type": only("text"), "text": TEXT}),
    record({"type": only("thinking"), "thinking": TEXT, "signature": TEXT}),
    record({"type": only("tool_use"), "id": TEXT, "name": TEXT, "input": OBJECT}),
)

ANTHROPIC_COMPONENTS: dict[str, Shape] = {
    "AnthropicMessage": record(
        {
            "id": TEXT,
            "type": only("message"),
            "role": only("assistant"),
            "model": TEXT,
            "content": array(_BLOCK),
            "stop_reason": TEXT,
            "stop_sequence": nullable(TEXT),
            "usage": record(
                {
                    "input_tokens": COUNT,
                    "cache_creation_input_tokens": COUNT,
                    "cache_read_input_tokens": COUNT,
                    "output_tokens": COUNT,
                }
            ),
            "session_id": TEXT,
        }
    ),
    "AnthropicEvent": record({"type": TEXT}),
    "AnthropicTokenCount": record({"input_tokens": COUNT}),
    "AnthropicError": record(
        {
            "type": only("error"),
            "error": record({"type": FILLED, "message": FILLED, "param": nullable(TEXT), "code": nullable(TEXT)}),
            "request_id": TEXT,
        }
    ),
}
