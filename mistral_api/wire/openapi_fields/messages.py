"""The messages of a chat."""

from __future__ import annotations

from mistral_api.wire import messages
from mistral_api.wire.json_schema import FILLED, NULL, OBJECT, TEXT, Shape, array, either, nullable, only, record, words
from mistral_api.wire.openapi_fields.registry import fixed

_DETAIL = {"detail": nullable(words("auto", "low", "high"))}
_CONTENTS: dict[str, Shape] = {
    "text": TEXT,
    "refusal": TEXT,
    "image_url": record({"url": FILLED}, _DETAIL),
    "video_url": record({"url": FILLED}, _DETAIL),
    "input_audio": record({"data": FILLED, "format": FILLED}),
    "input_video": OBJECT,
    "file": OBJECT,
}
_PARTS = either(*(record({"type": only(kind), kind: content}) for kind, content in _CONTENTS.items()))
_CONTENT = either(TEXT, array(_PARTS, 1))
_CALL = record({"name": TEXT, "arguments": TEXT})
_CALLS = array(record({"type": only("function"), "function": _CALL}, {"id": nullable(TEXT)}))
_TEXTS = {name: nullable(TEXT) for name in ("name", "refusal", "reasoning_content", "tool_call_id")}
_OPTIONAL = _TEXTS | {"tool_calls": nullable(_CALLS), "function_call": nullable(_CALL)}
# An assistant may have said nothing but these.
_INSTEAD: dict[str, Shape] = {
    "tool_calls": _CALLS | {"minItems": 1},
    "refusal": FILLED,
    "reasoning_content": FILLED,
    "function_call": _CALL,
}

_SPOKEN = record(
    {"role": words("system", "developer", "user", "assistant", "function"), "content": _CONTENT}, _OPTIONAL
)
_RESULT = record({"role": only("tool"), "content": _CONTENT, "tool_call_id": TEXT}, _OPTIONAL)
_SILENT = [
    record({"role": only("assistant"), name: shape}, {**_OPTIONAL, "content": NULL}) for name, shape in _INSTEAD.items()
]

fixed(messages.Messages, array(either(_SPOKEN, _RESULT, *_SILENT), 1, messages.MOST_MESSAGES))
