"""Numbers, strings and choices, and what generation and embedding requests have of their own."""

from __future__ import annotations

from mistral_api.wire import chat, constraints, conversations, embeddings, fields, queries, sampling
from mistral_api.wire import chat as completions
from mistral_api.wire import embeddings as rerank
from mistral_api.wire import sampling as samplers
from mistral_api.wire.json_schema import (
    ANYTHING,
    BOOLEAN,
    FILLED,
    INTEGER,
    NUMBER,
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
from mistral_api.wire.openapi_fields.registry import describes, fixed

TOKEN = number("integer", 0, 2**31 - 1)


@describes(fields.Integer)
def _integer(field: fields.Integer) -> Shape:
    return number("integer", field.low, field.high)


@describes(fields.Number)
def _number(field: fields.Number) -> Shape:
    return number("number", field.low, field.high)


@describes(fields.Text)
def _text(field: fields.Text) -> Shape:
    # The one form with a NUL in it is written out: not every dialect of regular expressions knows "\0".
    form = None if field.form is None else field.form.pattern.replace("\\0", "\\x00")
    return text(field.low, field.high, form)


@describes(queries.Name)
def _name(field: queries.Name) -> Shape:
    return _text(field)


@describes(fields.OneOf)
def _choice(field: fields.OneOf) -> Shape:
    return words(*field.words)


@describes(fields.Array)
def _array(field: fields.Array) -> Shape:
    return array(ANYTHING, field.low, field.high)


@describes(fields.TextOrTexts)
def _text_or_texts(field: fields.TextOrTexts) -> Shape:
    return either(FILLED, array(FILLED, 0, field.high))


fixed(fields.Boolean, BOOLEAN)
fixed(fields.Object, OBJECT)
fixed(constraints.JsonSchema, OBJECT | {"description": "A JSON schema that some value can satisfy."})
fixed(constraints.Grammar, text(0, constraints.MOST_GRAMMAR_CHARACTERS) | {"description": "A grammar in GBNF."})

_NAMES = array(TEXT, 0, samplers.MOST_SAMPLERS)
fixed(
    samplers.Samplers,
    # ``infill`` may come after ``top_k`` alone, which a schema can only say where that is the first.
    either(
        _NAMES | {"items": {"type": "string", "not": {"const": "infill"}}},
        _NAMES | {"prefixItems": [only("top_k")], "minItems": 1},
    ),
)
fixed(samplers.ServerOwnedField, {"not": {}, "description": "For the model server's own use."})

_PAIR = {"type": "array", "prefixItems": [either(INTEGER, TEXT), either(NUMBER, only(False))]}
fixed(
    sampling.LogitBias,
    either(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": number("number", -100, 100),
        },
        array(_PAIR | {"minItems": 2, "maxItems": 2}),
    ),
)
fixed(
    sampling.StreamOptions,
    record({}, {"include_usage": nullable(BOOLEAN), "include_obfuscation": nullable(BOOLEAN)}),
)


def _metadata(form: str | None) -> Shape:
    return {
        "type": "object",
        "maxProperties": 16,
        "propertyNames": text(1, 64, form),
        "additionalProperties": text(0, 512, form),
    }


fixed(sampling.Metadata, _metadata(None))
# PostgreSQL keeps no NUL character.
_WITHOUT_NUL = r"[^\x00]*"
fixed(conversations.StoredMetadata, _metadata(_WITHOUT_NUL))
fixed(conversations.Title, text(1, conversations.LONGEST_TITLE, _WITHOUT_NUL))

fixed(chat.TextModality, array(only("text"), 1))

_TOKENS = array(TOKEN, 1)
fixed(
    completions.Prompt,
    either(TEXT, _TOKENS, array(TEXT, 1, completions.MOST_PROMPTS), array(_TOKENS, 1, completions.MOST_PROMPTS)),
)
fixed(completions.Suffix, only(""))
fixed(sampling.UseHistory, only(False))
fixed(sampling.Truncation, only("disabled"))
fixed(
    embeddings.EmbeddingsInput,
    either(FILLED, _TOKENS, array(FILLED, 1, embeddings.MOST_INPUTS), array(_TOKENS, 1, embeddings.MOST_INPUTS)),
)
fixed(rerank.Documents, array(either(FILLED, record({"text": FILLED})), 1, rerank.MOST_DOCUMENTS))
