"""What each operation of the API takes and responds with, by the name of its Flask endpoint.

The OpenAPI document is made from this table and from the routes: paths, methods and summaries are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mistral_api.security.api_key import ADMIN, HISTORY, INFERENCE, METRICS
from mistral_api.wire import (
    anthropic,
    chat,
    completions,
    conversations,
    embeddings,
    generation_bodies,
    keys,
    llama_cpp,
    monitoring_bodies,
    ollama,
    queries,
    responses,
    stored_bodies,
)
from mistral_api.wire.container_shapes import Object, optional
from mistral_api.wire.request_schema import RequestSchema
from mistral_api.wire.sampling import ADAPTERS
from mistral_api.wire.shapes import Component, Nullable, Shape, StringEnum, Text


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    ``request`` and ``query`` are the schemas that the view loads with. Where the view has none, ``body`` is the shape
    of the body, and ``required_arguments`` and ``optional_arguments`` are those of the query.

    ``response`` is the body of a 200, ``event`` each event of a stream, ``line`` each line of one that has an object a
    line, ``media`` other media types of the response.
    The other ``statuses`` have ``error`` as their body, those in ``other_responses`` a body of their own.

    ``of_session``: it is part of a conversation, unless ``always_in_session`` says that it need not be.

    ``scope`` is what the caller must have; None: whoever may use the API. ``public``: anybody, without a key.

    ``links``: the name of a path parameter that the ``id`` in the response fits, and the operations that have it.
    """

    response: Component | None = None
    request: type[RequestSchema[Any]] | None = None
    query: type[RequestSchema[Any]] | None = None
    body: Shape | None = None
    required_arguments: dict[str, Shape] = field(default_factory=dict)
    optional_arguments: dict[str, Shape] = field(default_factory=dict)
    event: Component | None = None
    line: Component | None = None
    body_required: bool = True
    of_session: bool = False
    always_in_session: bool = True
    scope: str | None = INFERENCE
    public: bool = False
    statuses: frozenset[str] = frozenset()
    other_responses: dict[str, Component] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    error: Component = generation_bodies.ERROR
    links: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def has_body(self) -> bool:
        """Whether it takes a body."""
        return self.request is not None or self.body is not None

    def with_statuses(self, *statuses: str) -> Operation:
        """Return the same operation with more statuses."""
        return replace(self, statuses=self.statuses | set(statuses))


# The model server is away, silent or failing; what it refuses keeps the status that it gave.
_MODEL_SERVER_STATUSES = ("400", "404", "4XX", "502", "503", "504")


def passthrough_operation(response: Component, **options: Any) -> Operation:
    """Describe a question that the model server answers."""
    return Operation(response, **options).with_statuses(*_MODEL_SERVER_STATUSES)


def generation_operation(response: Component, event: Component, **options: Any) -> Operation:
    """Describe a generation: its response is a whole body, or events."""
    return passthrough_operation(response, event=event, of_session=True, **options)


def database_operation(response: Component, **options: Any) -> Operation:
    """Describe a question about what is recorded, which PostgreSQL answers."""
    return Operation(response, **{"scope": HISTORY} | options).with_statuses("503")


def admin_operation(response: Component, **options: Any) -> Operation:
    """Describe a question to the model server that only an administrator may ask."""
    return passthrough_operation(response, scope=ADMIN, **options)


def key_operation(response: Component, **options: Any) -> Operation:
    """Describe a question about API keys, which only an administrator may ask."""
    return database_operation(response, scope=ADMIN, **options)


def _endpoints(blueprint: str, *views: str) -> tuple[str, ...]:
    return tuple(f"{blueprint}.{view}" for view in views)


def _ollama_generation(response: Component, request: type[RequestSchema[Any]]) -> Operation:
    """Describe a generation of Ollama's API: its response is a whole body, or a JSON object a line.

    A request without a prompt loads the model, and belongs to no conversation.
    """
    return _ollama_operation(response, request=request, line=response, of_session=True, always_in_session=False)


def _ollama_operation(response: Component, **options: Any) -> Operation:
    return passthrough_operation(response, error=ollama.OLLAMA_ERROR, **options)


# Models are the operator's: what would change them is refused, whatever it asks for.
_MODEL_CHANGE = Operation(ollama.OLLAMA_PROGRESS, body=ollama.MODEL_CHANGE, error=ollama.OLLAMA_ERROR)

_LLAMA_CPP_COMPLETION = generation_operation(
    llama_cpp.COMPLETIONS, llama_cpp.COMPLETION, request=llama_cpp.LlamaCppCompletionRequest
)

OPERATIONS: dict[str, Operation] = {
    "chat.create_chat_completion": generation_operation(
        generation_bodies.CHAT_COMPLETION,
        generation_bodies.CHAT_COMPLETION_CHUNK,
        request=chat.ChatCompletionRequest,
        links=("completion_id", _endpoints("stored_completions", "retrieve", "change", "list_messages", "remove")),
    ),
    "completions.create_completion": generation_operation(
        generation_bodies.COMPLETION, generation_bodies.COMPLETION_CHUNK, request=completions.CompletionRequest
    ),
    "stored_completions.list_all": database_operation(
        generation_bodies.CHAT_COMPLETION_PAGE, query=queries.CompletionListQuery
    ).with_statuses("404"),
    "stored_completions.retrieve": database_operation(generation_bodies.CHAT_COMPLETION),
    "stored_completions.change": database_operation(
        generation_bodies.CHAT_COMPLETION, request=conversations.ConversationUpdate
    ),
    "stored_completions.remove": database_operation(generation_bodies.CHAT_COMPLETION_DELETED),
    "stored_completions.list_messages": database_operation(
        generation_bodies.CHAT_COMPLETION_MESSAGE_PAGE, query=queries.PageQuery
    ),
    "responses.create": generation_operation(
        stored_bodies.RESPONSE,
        stored_bodies.RESPONSE_EVENT,
        request=responses.ResponseRequest,
        links=("response_id", _endpoints("responses", "retrieve", "list_input_items", "cancel", "remove")),
    ),
    "responses.count_input_tokens": passthrough_operation(
        stored_bodies.INPUT_TOKENS, request=responses.InputTokensRequest
    ),
    "responses.retrieve": database_operation(
        stored_bodies.RESPONSE, query=queries.ResponseQuery, event=stored_bodies.RESPONSE_EVENT
    ),
    "responses.remove": database_operation(stored_bodies.RESPONSE_DELETED),
    "responses.cancel": database_operation(stored_bodies.RESPONSE, scope=INFERENCE).with_statuses("400"),
    "responses.list_input_items": database_operation(stored_bodies.ITEM_PAGE, query=queries.InputItemsQuery),
    "conversations.list_all": database_operation(
        stored_bodies.CONVERSATION_PAGE, query=queries.ConversationListQuery
    ).with_statuses("404"),
    "conversations.create": database_operation(
        stored_bodies.CONVERSATION, request=conversations.ConversationCreation, body_required=False
    ).with_statuses("404"),
    "conversations.retrieve": database_operation(
        stored_bodies.CONVERSATION_WITH_MESSAGES, query=queries.ConversationQuery
    ),
    "conversations.change": database_operation(stored_bodies.CONVERSATION, request=conversations.ConversationChanges),
    "conversations.update": database_operation(stored_bodies.CONVERSATION, request=conversations.ConversationUpdate),
    "conversations.remove": database_operation(stored_bodies.CONVERSATION_DELETED),
    "conversation_items.create": database_operation(stored_bodies.ITEM_PAGE, request=conversations.ItemsCreation),
    "conversation_items.list_all": database_operation(stored_bodies.ITEM_PAGE, query=queries.ItemListQuery),
    "conversation_items.retrieve": database_operation(stored_bodies.ITEM).with_statuses("400"),
    "conversation_items.remove": database_operation(stored_bodies.CONVERSATION).with_statuses("400"),
    "embeddings.create_embeddings": passthrough_operation(
        generation_bodies.EMBEDDINGS, request=embeddings.EmbeddingsRequest
    ),
    "embeddings.rerank": passthrough_operation(generation_bodies.RANKING, request=embeddings.RerankRequest),
    "models.list_models": passthrough_operation(generation_bodies.MODEL_LIST, scope=None),
    "models.retrieve_model": passthrough_operation(generation_bodies.MODEL, scope=None),
    "anthropic.create_message": generation_operation(
        anthropic.ANTHROPIC_MESSAGE,
        anthropic.ANTHROPIC_EVENT,
        request=anthropic.MessagesRequest,
        error=anthropic.ANTHROPIC_ERROR,
    ),
    "anthropic.count_tokens": passthrough_operation(
        anthropic.ANTHROPIC_TOKEN_COUNT, request=anthropic.CountTokensRequest, error=anthropic.ANTHROPIC_ERROR
    ),
    "ollama.chat": _ollama_generation(ollama.OLLAMA_CHAT, ollama.OllamaChatRequest),
    "ollama.generate": _ollama_generation(ollama.OLLAMA_GENERATE, ollama.OllamaGenerateRequest),
    "ollama.embed": _ollama_operation(ollama.OLLAMA_EMBEDDINGS, request=ollama.OllamaEmbedRequest),
    "ollama.embeddings": _ollama_operation(ollama.OLLAMA_EMBEDDING, request=ollama.OllamaEmbeddingsRequest),
    "ollama_models.list_models": _ollama_operation(ollama.OLLAMA_MODELS, scope=None),
    "ollama_models.list_running": _ollama_operation(ollama.OLLAMA_RUNNING, scope=None),
    "ollama_models.show": _ollama_operation(ollama.OLLAMA_SHOW, request=ollama.OllamaNamedModel, scope=None),
    "ollama_models.show_version": Operation(ollama.OLLAMA_VERSION, scope=None, error=ollama.OLLAMA_ERROR),
    "ollama_models.pull": _ollama_operation(
        ollama.OLLAMA_PROGRESS, request=ollama.OllamaNamedModel, line=ollama.OLLAMA_PROGRESS
    ),
    "ollama_models.push": _MODEL_CHANGE,
    "ollama_models.create": _MODEL_CHANGE,
    "ollama_models.copy": _MODEL_CHANGE,
    "ollama_models.delete": _MODEL_CHANGE,
    "ollama_models.add_blob": _MODEL_CHANGE,
    "llama_cpp.complete": _LLAMA_CPP_COMPLETION,
    "llama_cpp.completion_alias": _LLAMA_CPP_COMPLETION,
    "llama_cpp.infill": generation_operation(
        llama_cpp.COMPLETIONS, llama_cpp.COMPLETION, request=llama_cpp.InfillRequest
    ),
    "llama_cpp.tokenize": passthrough_operation(llama_cpp.TOKENS, request=llama_cpp.TokenizeRequest),
    "llama_cpp.detokenize": passthrough_operation(llama_cpp.DETOKENIZED, request=llama_cpp.DetokenizeRequest),
    "llama_cpp.apply_template": passthrough_operation(llama_cpp.FORMATTED_PROMPT, request=chat.ChatCompletionRequest),
    "llama_cpp.show_props": passthrough_operation(llama_cpp.PROPERTIES),
    "model_server.list_slots": admin_operation(llama_cpp.SLOTS, optional_arguments={"fail_on_no_slot": Text()}),
    "model_server.act_on_slot": admin_operation(
        llama_cpp.SLOT_ACTION,
        body=Object(optional(model=Nullable(Text()), filename=Text())),
        required_arguments={"action": StringEnum("save", "restore", "erase")},
    ),
    "model_server.change_props": admin_operation(llama_cpp.DONE, request=llama_cpp.AnyObject),
    "model_server.list_adapters": admin_operation(llama_cpp.ADAPTER_LIST),
    "model_server.change_adapters": admin_operation(llama_cpp.DONE, body=ADAPTERS),
    "model_server.load_model": admin_operation(llama_cpp.DONE, request=llama_cpp.AnyObject),
    "model_server.unload_model": admin_operation(llama_cpp.DONE, request=llama_cpp.AnyObject),
    "stats.show_stats": database_operation(monitoring_bodies.STATISTICS, query=queries.StatsQuery),
    "metrics.show_metrics": Operation(scope=METRICS, media=("text/plain", "application/openmetrics-text")),
    "keys.create": key_operation(
        keys.MADE_API_KEY,
        request=keys.KeyRequest,
        links=("key_id", _endpoints("keys", "retrieve", "revoke", "rotate")),
    ),
    "keys.list_all": key_operation(keys.API_KEY_PAGE, query=queries.PageQuery).with_statuses("404"),
    "keys.retrieve": key_operation(keys.API_KEY),
    "keys.revoke": key_operation(keys.API_KEY_DELETED),
    "keys.rotate": key_operation(keys.MADE_API_KEY, request=keys.RotationRequest, body_required=False),
    "root.show_root": Operation(
        monitoring_bodies.ROOT, scope=None, public=True, other_responses={"302": monitoring_bodies.ROOT}
    ),
    "health.show_health": Operation(
        monitoring_bodies.HEALTH, scope=None, public=True, other_responses={"503": monitoring_bodies.HEALTH}
    ),
    "health.show_liveness": Operation(monitoring_bodies.LIVENESS, scope=None, public=True),
    "health.show_readiness": Operation(
        monitoring_bodies.READINESS, scope=None, public=True, other_responses={"503": monitoring_bodies.READINESS}
    ),
    "documentation.show_description": Operation(monitoring_bodies.OPENAPI_DOCUMENT, scope=None),
    "documentation.show_page": Operation(scope=None, media=("text/html",)),
    "documentation.show_asset": Operation(scope=None, media=("text/css", "text/javascript", "image/png")),
}

# What each blueprint is for; this is in the document.
TAGS = {
    "chat": "Chat completions",
    "completions": "Legacy completions",
    "stored_completions": "Chat completions that were stored (`store: true`)",
    "responses": "OpenAI's Responses API",
    "conversations": "Sessions: what was said",
    "conversation_items": "Sessions as OpenAI's items",
    "embeddings": "Embeddings and rankings",
    "models": "The models served",
    "anthropic": "Anthropic's Messages API",
    "ollama": "Ollama's own API",
    "ollama_models": "The models served, in Ollama's own API",
    "llama_cpp": "llama.cpp's own endpoints",
    "model_server": "What shows the model server's inside or changes it: needs the scope `admin`",
    "stats": "Usage",
    "metrics": "What Prometheus reads: needs the scope `metrics`",
    "keys": "API keys: for administrators",
    "root": "What this server is; needs no key",
    "health": "The state of every part; needs no key",
    "documentation": "This description",
}
