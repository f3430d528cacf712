"""What requests may hold: marshmallow schemas, one module per family."""

from mistral_api.wire.chat import ChatCompletionRequest
from mistral_api.wire.completions import CompletionRequest
from mistral_api.wire.conversations import ItemsCreation, load_changes, load_creation, load_metadata
from mistral_api.wire.embeddings import EmbeddingsRequest, RerankRequest
from mistral_api.wire.queries import (
    CompletionListQuery,
    ConversationListQuery,
    ConversationQuery,
    ItemListQuery,
    PageQuery,
    StatsQuery,
)
from mistral_api.wire.request_schema import load
from mistral_api.wire.sampling import valid_session_id

__all__ = [
    "ChatCompletionRequest",
    "CompletionListQuery",
    "CompletionRequest",
    "ConversationListQuery",
    "ConversationQuery",
    "EmbeddingsRequest",
    "ItemListQuery",
    "ItemsCreation",
    "PageQuery",
    "RerankRequest",
    "StatsQuery",
    "load",
    "load_changes",
    "load_creation",
    "load_metadata",
    "valid_session_id",
]
