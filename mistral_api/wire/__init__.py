"""The shapes of what crosses the network, each declared once: requests, response bodies, arguments of queries.

``shapes`` and ``container_shapes`` are the vocabulary, ``request_schema`` the marshmallow schemas that hold shapes and
``load``. The other modules declare, one a family of endpoints; ``sampling`` has the fields that generation requests
share.
"""

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
