"""What requests may hold: marshmallow schemas, one module per family."""

from mistral_api.schemas.chat import ChatCompletionRequest
from mistral_api.schemas.completions import CompletionRequest
from mistral_api.schemas.conversations import load_changes
from mistral_api.schemas.embeddings import EmbeddingsRequest
from mistral_api.schemas.loading import load
from mistral_api.schemas.queries import ConversationListQuery, ConversationQuery, StatsQuery
from mistral_api.schemas.rerank import RerankRequest
from mistral_api.schemas.sampling import valid_session_id

__all__ = [
    "ChatCompletionRequest",
    "CompletionRequest",
    "ConversationListQuery",
    "ConversationQuery",
    "EmbeddingsRequest",
    "RerankRequest",
    "StatsQuery",
    "load",
    "load_changes",
    "valid_session_id",
]
