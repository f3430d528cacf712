"""Input items of the Conversations and Responses APIs."""

from __future__ import annotations

from mistral_api.wire.items import Items
from mistral_api.wire.json_schema import FILLED, NULL, TEXT, Shape, array, either, nullable, only, record, words
from mistral_api.wire.openapi_fields.registry import describes

_NO_FILE = {"file_id": NULL}
_FILE_FIELDS = {name: nullable(FILLED) for name in ("file_data", "file_url", "filename")}
_INPUT_PARTS = (
    record({"type": only("input_text"), "text": TEXT}),
    record(
        {"type": only("input_image"), "image_url": FILLED},
        {"detail": nullable(words("low", "high", "auto", "original")), **_NO_FILE},
    ),
    *(
        record({"type": only("input_file"), given: FILLED}, {**_FILE_FIELDS, **_NO_FILE})
        for given in ("file_data", "file_url")
    ),
    record({"type": only("input_audio"), "input_audio": record({"data": FILLED, "format": FILLED})}),
)
_OUTPUT_PARTS = (
    record({"type": only("output_text"), "text": TEXT}),
    record({"type": only("refusal"), "refusal": TEXT}),
)
_COMMON: dict[str, Shape] = {
    "id": nullable(FILLED),
    "status": nullable(words("in_progress", "completed", "incomplete")),
}
_MESSAGE = {"type": nullable(only("message")), **_COMMON}


def _reasoning(kind: str) -> Shape:
    return nullable(array(record({"type": only(kind), "text": TEXT})))


ITEM = either(
    record(
        {
            "role": words("user", "system", "developer"),
            "content": either(TEXT, array(either(*_INPUT_PARTS), 1)),
        },
        _MESSAGE,
    ),
    record(
        {
            "role": only("assistant"),
            "content": either(TEXT, array(either(*_OUTPUT_PARTS, *_INPUT_PARTS))),
        },
        _MESSAGE,
    ),
    record({"type": only("function_call"), "call_id": FILLED, "name": FILLED, "arguments": TEXT}, _COMMON),
    record(
        {
            "type": only("function_call_output"),
            "call_id": FILLED,
            "output": either(TEXT, array(either(*_INPUT_PARTS))),
        },
        {"name": nullable(TEXT), **_COMMON},
    ),
    record(
        {"type": only("reasoning")},
        {"summary": _reasoning("summary_text"), "content": _reasoning("reasoning_text"), **_COMMON},
    ),
    record({"type": only("item_reference"), "id": FILLED}, {"status": _COMMON["status"]}),
    # Without a type, an id alone refers to an item.
    record({"id": FILLED}, {"type": NULL, "status": _COMMON["status"]}) | {"not": {"required": ["role"]}},
)


@describes(Items)
def _items(field: Items) -> Shape:
    return array(ITEM, field.low, field.high)
