"""The JSON schema of every kind of field in requests; tests hold each to the field's own check."""

from mistral_api.wire.openapi_fields import anthropic, basic, items, llama_cpp, messages, queries, responses, tools
from mistral_api.wire.openapi_fields.registry import DESCRIBERS, shape_of

DESCRIBED_IN = (anthropic, basic, items, llama_cpp, messages, queries, responses, tools)

__all__ = ["DESCRIBED_IN", "DESCRIBERS", "shape_of"]
