"""Request bodies and query arguments, from the marshmallow schemas that the views load with."""

from __future__ import annotations

from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema
from marshmallow.fields import Field

from mistral_api.openapi.fields import shape_of
from mistral_api.openapi.shapes import Shape, nullable
from mistral_api.schemas import anthropic, chat, completions, conversations, embeddings, llama_cpp, rerank, responses
from mistral_api.schemas.fields import Boolean
from mistral_api.schemas.queries import Query
from mistral_api.schemas.response_fields import UNSUPPORTED

_HELLO = [{"role": "user", "content": "Hello, how are you?"}]
# What a reader tries first.
EXAMPLES: dict[type[Schema], dict[str, Any]] = {
    chat.ChatCompletionRequest: {"messages": _HELLO, "max_tokens": 60, "session_id": "first-steps"},
    completions.CompletionRequest: {"prompt": "Once upon a time", "max_tokens": 20},
    responses.ResponseRequest: {"input": "Hello, how are you?", "max_output_tokens": 60},
    responses.InputTokensRequest: {"input": "Hello, how are you?"},
    anthropic.MessagesRequest: {"messages": _HELLO, "max_tokens": 60},
    anthropic.CountTokensRequest: {"messages": _HELLO},
    embeddings.EmbeddingsRequest: {"input": ["What is a panda?", "A bear."]},
    rerank.RerankRequest: {"query": "What is a panda?", "documents": ["A bear.", "A kind of bread."]},
    conversations.ConversationCreation: {"metadata": {"topic": "pandas"}},
    conversations.ConversationChanges: {"title": "First steps"},
    conversations.ConversationUpdate: {"metadata": {"topic": "pandas"}},
    conversations.ItemsCreation: {"items": [{"role": "user", "content": "Hello, how are you?"}]},
    llama_cpp.NativeCompletionRequest: {"prompt": "Once upon a time", "n_predict": 20},
    llama_cpp.InfillRequest: {"input_prefix": "def add(", "input_suffix": "return a + b", "n_predict": 20},
    llama_cpp.TokenizeRequest: {"content": "Hello, how are you?"},
    llama_cpp.DetokenizeRequest: {"tokens": [1, 2, 3]},
    llama_cpp.AnyObject: {},
}


def _says_nothing(name: str) -> list[Any]:
    """The values of a field that is not supported which harm nobody, as far as its own check lets them."""
    field = responses.ResponseRequest().fields.get(name)
    if field is None:
        return [None, False, []]
    return [None, False] if isinstance(field, Boolean) else [None]


_RESPONSES: Shape = {
    "properties": {
        name: {"enum": _says_nothing(name), "description": f"Not supported. {instead}"}
        for name, instead in UNSUPPORTED.items()
    },
    "anyOf": [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
        for name in ("input", "previous_response_id", "conversation")
    ],
}
# What the loaders demand beyond single fields, as far as JSON schemas say it simply.
_RULES: dict[type[Schema], Shape] = {
    responses.ResponseRequest: _RESPONSES,
    responses.InputTokensRequest: _RESPONSES,
    conversations.ConversationChanges: {"minProperties": 1},
    conversations.ConversationUpdate: {"required": ["metadata"]},
}


class RequestSchemas(MarshmallowPlugin):
    """apispec's reader of marshmallow schemas, which asks ``fields`` what each field allows."""

    def init_spec(self, spec: Any) -> None:
        """Begin a document."""
        super().init_spec(spec)
        self.converter: Any  # apispec has none before this
        self.converter.add_attribute_function(_described)

    def body(self, kind: type[Schema]) -> Shape:
        """The JSON schema of a body."""
        shape: Shape = self.converter.schema2jsonschema(kind())
        rules = dict(_RULES.get(kind, {}))
        shape["properties"] = dict(shape["properties"]) | rules.pop("properties", {})
        described = {"description": (kind.__doc__ or "").partition("\n")[0].replace("``", "`")}
        example = {"example": EXAMPLES[kind]} if kind in EXAMPLES else {}
        return {"type": "object"} | shape | rules | described | example

    def arguments(self, kind: type[Schema]) -> list[dict[str, Any]]:
        """The arguments of a query; objects come as ``name[key]=value``."""
        found: list[dict[str, Any]] = self.converter.schema2parameters(kind(), location="query")
        for argument in found:
            if argument["schema"].get("type") == "object":
                argument |= {"style": "deepObject", "explode": True}
        return found


def _described(_converter: Any, field: Field[Any], **_options: Any) -> Shape:
    """A field of a query is text; in a body null counts as absent."""
    shape = shape_of(field)
    return shape if field.required or isinstance(field.parent, Query) else nullable(shape)
