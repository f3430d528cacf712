"""What the requests of llama.cpp's own endpoints have of their own."""

from __future__ import annotations

from mistral_api.wire import llama_cpp
from mistral_api.wire.json_schema import INTEGER, NUMBER, TEXT, array, either, record, text
from mistral_api.wire.llama_cpp import MOST_EXTRAS, MOST_FIELDS, MOST_PROMPTS, MOST_TOKENS
from mistral_api.wire.openapi_fields.basic import TOKEN
from mistral_api.wire.openapi_fields.registry import fixed

_MIXED = either(TEXT, array(either(TEXT, TOKEN), 0, MOST_TOKENS))
_WITH_MEDIA = record({"prompt_string": TEXT}, {"multimodal_data": array(TEXT, 0, MOST_PROMPTS)})

fixed(llama_cpp.TextOrTokens, _MIXED)
fixed(
    llama_cpp.NativePrompt,
    either(
        TEXT,
        _WITH_MEDIA,
        # A number makes the array one prompt; without one it is an array of prompts.
        array(either(TEXT, TOKEN), 1, MOST_TOKENS) | {"contains": INTEGER},
        array(either(TEXT, _WITH_MEDIA, array(either(TEXT, TOKEN), 0, MOST_TOKENS)), 1, MOST_PROMPTS),
    ),
)
fixed(llama_cpp.FieldPaths, array(text(1, 256), 0, MOST_FIELDS))
fixed(llama_cpp.InputExtra, array(record({"text": TEXT}, {"filename": TEXT}), 0, MOST_EXTRAS))
fixed(llama_cpp.TokenArray, array(TOKEN, 0, MOST_TOKENS))
fixed(
    llama_cpp.SlotFile,
    text(form=llama_cpp.FILE_NAME.pattern) | {"not": {"pattern": r"\.(?:|kv|json|forgotten)$"}},
)
ADAPTERS = array(record({"id": TOKEN, "scale": NUMBER}), 0, llama_cpp.MOST_ADAPTERS)
fixed(llama_cpp.AdapterScales, ADAPTERS)
