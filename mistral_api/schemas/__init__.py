"""What requests may hold: marshmallow schemas, one module per family."""

from mistral_api.schemas.chat import ChatCompletionRequest
from mistral_api.schemas.completions import CompletionRequest
from mistral_api.schemas.conversations import ItemsCreation, load_changes, load_creation, load_metadata
from mistral_api.schemas.loading import load
from mistral_api.schemas.queries import ConversationListQuery, ConversationQuery, ItemListQuery, StatsQuery
from mistral_api.schemas.sampling import valid_session_id
from mistral_api.schemas.stored import CompletionListQuery, PageQuery

__all__ = [
    "ChatCompletionRequest",
    "CompletionListQuery",
    "CompletionRequest",
    "ConversationListQuery",
    "ConversationQuery",
    "ItemListQuery",
    "ItemsCreation",
    "PageQuery",
    "StatsQuery",
    "load",
    "load_changes",
    "load_creation",
    "load_metadata",
    "valid_session_id",
]
