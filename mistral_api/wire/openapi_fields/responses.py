"""What a Responses request has of its own."""

from __future__ import annotations

from mistral_api.wire import response_fields, sampling
from mistral_api.wire.json_schema import (
    BOOLEAN,
    OBJECT,
    TEXT,
    Shape,
    array,
    either,
    nullable,
    only,
    record,
    text,
    words,
)
from mistral_api.wire.openapi_fields.items import ITEM
from mistral_api.wire.openapi_fields.registry import describes, fixed
from mistral_api.wire.openapi_fields.tools import FUNCTION_EXTRAS, FUNCTION_NAME
from mistral_api.wire.tools import MOST_TOOLS

_CONVERSATION_ID = text(1, sampling.SESSION_ID_LENGTH, sampling.SESSION_ID.pattern)


@describes(response_fields.ResponseInput)
def _input(field: response_fields.ResponseInput) -> Shape:
    return either(TEXT, array(ITEM, field.low, field.high))


fixed(response_fields.ResponseId, text(form="resp_[A-Za-z0-9_-]{1,128}"))
fixed(response_fields.ConversationName, either(_CONVERSATION_ID, record({"id": _CONVERSATION_ID})))

_NAMED = record({"type": only("function"), "name": FUNCTION_NAME})
fixed(
    response_fields.FunctionTools,
    array(record({"type": only("function"), "name": FUNCTION_NAME}, FUNCTION_EXTRAS), 0, MOST_TOOLS),
)
fixed(
    response_fields.ResponseToolChoice,
    either(
        words("none", "auto", "required"),
        _NAMED,
        record(
            {
                "type": only("allowed_tools"),
                "mode": words("auto", "required"),
                "tools": array(_NAMED, 1, MOST_TOOLS),
            }
        ),
    ),
)
_FORMAT = either(
    record({"type": words("text", "json_object")}),
    record(
        {"type": only("json_schema"), "name": FUNCTION_NAME, "schema": OBJECT},
        {"description": nullable(TEXT), "strict": nullable(BOOLEAN)},
    ),
)
fixed(
    response_fields.TextOptions,
    record({}, {"format": nullable(_FORMAT), "verbosity": nullable(words("low", "medium", "high"))}),
)
_SUMMARY = nullable(words("auto", "concise", "detailed"))
fixed(
    response_fields.ReasoningOptions,
    record(
        {},
        {"effort": nullable(words(*response_fields.EFFORTS)), "summary": _SUMMARY, "generate_summary": _SUMMARY},
    ),
)
fixed(response_fields.Includes, array(words(*response_fields.INCLUDABLE)))
