"""What requests may hold: marshmallow schemas, one module per family."""

from mistral_api.schemas.chat import ChatCompletionRequest
from mistral_api.schemas.completions import CompletionRequest
from mistral_api.schemas.conversations import ItemsCreation, load_changes, load_creation, load_metadata
from mistral_api.schemas.embeddings import EmbeddingsRequest
from mistral_api.schemas.loading import load
from mistral_api.schemas.queries import ConversationListQuery, ConversationQuery, ItemListQuery, StatsQuery
from mistral_api.schemas.rerank import RerankRequest
from mistral_api.schemas.sampling import valid_session_id
from mistral_api.schemas.stored import CompletionListQuery, PageQuery

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
