"""The answers of llama.cpp's own endpoints, as far as they are the same in all its versions."""

from __future__ import annotations

from mistral_api.openapi.shapes import ANYTHING, BOOLEAN, INTEGER, OBJECT, TEXT, Shape, array, either, record, ref

LLAMA_CPP_COMPONENTS: dict[str, Shape] = {
    # With response_fields an answer has the fields asked for alone.
    "NativeCompletion": record(
        {}, {"index": INTEGER, "content": TEXT, "tokens": array(INTEGER), "stop": BOOLEAN, "model": TEXT}
    ),
    "NativeCompletions": either(ref("NativeCompletion"), array(ref("NativeCompletion"))),
    "Tokens": record({"tokens": array(either(INTEGER, record({"id": INTEGER, "piece": ANYTHING})))}),
    "Detokenized": record({"content": TEXT}),
    "Prompt": record({"prompt": TEXT}),
    "Properties": OBJECT,
    "Slots": array(OBJECT),
    "SlotAction": record({"id_slot": INTEGER}),
    "Adapters": array(OBJECT),
    "Done": OBJECT,
}
