"""What Anthropic's requests have of their own."""

from __future__ import annotations

from mistral_api.wire import anthropic
from mistral_api.wire.json_schema import (
    BOOLEAN,
    FILLED,
    OBJECT,
    TEXT,
    Shape,
    array,
    either,
    nullable,
    number,
    only,
    record,
    text,
    words,
)
from mistral_api.wire.messages import MOST_MESSAGES
from mistral_api.wire.openapi_fields.registry import fixed
from mistral_api.wire.openapi_fields.tools import FUNCTION_NAME
from mistral_api.wire.sampling import STOPS
from mistral_api.wire.tools import MOST_TOOLS

_TEXT_BLOCK = record({"type": only("text"), "text": TEXT})
_IMAGE = record(
    {
        "type": only("image"),
        "source": either(
            record({"type": only("url"), "url": FILLED}),
            record({"type": only("base64"), "media_type": TEXT, "data": TEXT}),
        ),
    }
)
_DOCUMENT = record(
    {
        "type": only("document"),
        "source": either(
            record({"type": only("text"), "data": TEXT}),
            record({"type": only("content"), "content": either(TEXT, array(either(_TEXT_BLOCK, _IMAGE)))}),
        ),
    },
    {"title": nullable(TEXT), "context": nullable(TEXT)},
)
_SEARCH_RESULT = record({"type": only("search_result"), "title": TEXT, "source": TEXT, "content": array(_TEXT_BLOCK)})
_SAID = (_TEXT_BLOCK, _IMAGE, _DOCUMENT, _SEARCH_RESULT)
_TOOL_RESULT = record(
    {"type": only("tool_result"), "tool_use_id": TEXT},
    {"is_error": nullable(BOOLEAN), "content": nullable(either(TEXT, array(either(*_SAID))))},
)
_TOOL_USE = record({"type": only("tool_use"), "id": TEXT, "name": TEXT, "input": OBJECT})
_THINKING = record({"type": only("thinking"), "thinking": TEXT})
_REDACTED = record({"type": only("redacted_thinking")})


def _message(role: str, *blocks: Shape) -> Shape:
    return record({"role": only(role), "content": either(TEXT, array(either(*blocks)))})


fixed(
    anthropic.AnthropicMessages,
    array(
        either(
            _message("user", *_SAID, _TOOL_RESULT),
            _message("assistant", _TEXT_BLOCK, _THINKING, _REDACTED, _TOOL_USE),
            _message("system", _TEXT_BLOCK),
        ),
        1,
        MOST_MESSAGES,
    ),
)
fixed(anthropic.System, either(TEXT, array(_TEXT_BLOCK)))
fixed(
    anthropic.AnthropicTools,
    array(
        record(
            {"name": FUNCTION_NAME, "input_schema": OBJECT},
            {
                "type": nullable(only("custom")),
                "description": nullable(TEXT),
                "strict": nullable(BOOLEAN),
            },
        ),
        0,
        MOST_TOOLS,
    ),
)
_PARALLEL = {"disable_parallel_tool_use": nullable(BOOLEAN)}
fixed(
    anthropic.AnthropicToolChoice,
    either(
        record({"type": words("auto", "any", "none")}, _PARALLEL),
        record({"type": only("tool"), "name": FUNCTION_NAME}, _PARALLEL),
    ),
)
fixed(anthropic.StopSequences, array(FILLED, 0, STOPS))
fixed(
    anthropic.Thinking,
    either(
        record({"type": words("disabled", "adaptive", "between_tools")}),
        record({"type": only("enabled"), "budget_tokens": number("integer", 0, 2**31 - 1)}),
    ),
)
_FORMAT = record({"type": only("json_schema"), "schema": OBJECT})
fixed(
    anthropic.OutputConfig,
    record(
        {},
        {"effort": nullable(words("low", "medium", "high", "xhigh", "max")), "format": nullable(_FORMAT)},
    ),
)
fixed(anthropic.UserMetadata, record({}, {"user_id": nullable(text(0, 512))}))
fixed(anthropic.NoServers, array({}, 0, 0))
