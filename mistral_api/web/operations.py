"""Each operation: summary, request shape, response shape, errors.

One operation: what a route takes and answers, beside what its URL and its view say themselves.

Every operation of the API, by the name of its Flask endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mistral_api.wire import anthropic, chat, completions, embeddings, queries, responses
from mistral_api.wire import conversations as changes
from mistral_api.wire import embeddings as rerank
from mistral_api.wire import llama_cpp as native
from mistral_api.wire.json_schema import TEXT, Shape, nullable, record, words
from mistral_api.wire.queries import CompletionListQuery, InputItemsQuery, PageQuery, ResponseQuery
from mistral_api.wire.request_schema import RequestSchema

JSON, EVENTS = "application/json", "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """``request`` and ``query``: the schemas that the view loads with; where it has none ``body``, and of the query
    the arguments that are ``needed`` and the others.

    ``answer``: the component of the JSON that is answered with 200, ``event`` that of every event of a stream.
    ``statuses``: what else is answered, in the error shape ``error``; ``also``: with a component of its own.
    ``names``: the path parameter of other operations that the ``id`` of the answer is for, and these operations.
    """

    answer: str | None = None
    request: type[RequestSchema] | None = None
    query: type[RequestSchema] | None = None
    body: Shape | None = None
    needed: dict[str, Shape] = field(default_factory=dict)
    arguments: dict[str, Shape] = field(default_factory=dict)
    event: str | None = None
    body_required: bool = True
    of_session: bool = False
    guarded: bool = True
    statuses: frozenset[str] = frozenset()
    also: dict[str, str] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    error: str = "Error"
    names: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def has_body(self) -> bool:
        """Whether it takes a body."""
        return self.request is not None or self.body is not None

    def answers(self, *statuses: str) -> Operation:
        """The same with more statuses."""
        return replace(self, statuses=self.statuses | set(statuses))


# The model server: away, silent or failing; what it refuses keeps the status it gave.
_ASKING = ("400", "404", "4XX", "502", "503", "504")


def passthrough_operation(answer: str, **options: Any) -> Operation:
    """A question that the model server answers."""
    return Operation(answer, **options).answers(*_ASKING)


def generating(answer: str, event: str, **options: Any) -> Operation:
    """A generation: a whole body, or events."""
    return passthrough_operation(answer, event=event, of_session=True, **options)


def reading(answer: str, **options: Any) -> Operation:
    """Something that PostgreSQL answers."""
    return Operation(answer, **options).answers("503")


def administering(answer: str, **options: Any) -> Operation:
    """What only an administrator may ask of the model server."""
    operation = passthrough_operation(answer, **options).answers("403")
    return operation.answers("415") if operation.has_body else operation


def _family(blueprint: str, *views: str) -> tuple[str, ...]:
    return tuple(f"{blueprint}.{view}" for view in views)


_ANTHROPIC = {"error": "AnthropicError"}
_NATIVE = generating("NativeCompletions", "NativeCompletion", request=native.NativeCompletionRequest)

OPERATIONS: dict[str, Operation] = {
    "chat.create_chat_completion": generating(
        "ChatCompletion",
        "ChatCompletionChunk",
        request=chat.ChatCompletionRequest,
        names=("completion_id", _family("stored_completions", "retrieve", "change", "list_messages", "remove")),
    ),
    "completions.create_completion": generating("Completion", "CompletionChunk", request=completions.CompletionRequest),
    "stored_completions.list_all": reading("ChatCompletionPage", query=CompletionListQuery).answers("404"),
    "stored_completions.retrieve": reading("ChatCompletion"),
    "stored_completions.change": reading("ChatCompletion", request=changes.ConversationUpdate),
    "stored_completions.remove": reading("ChatCompletionDeleted"),
    "stored_completions.list_messages": reading("ChatCompletionMessagePage", query=PageQuery),
    "responses.create": generating(
        "Response",
        "ResponseEvent",
        request=responses.ResponseRequest,
        names=("response_id", _family("responses", "retrieve", "list_input_items", "cancel", "remove")),
    ),
    "responses.count_input_tokens": passthrough_operation("InputTokens", request=responses.InputTokensRequest),
    "responses.retrieve": reading("Response", query=ResponseQuery, event="ResponseEvent"),
    "responses.remove": reading("ResponseDeleted"),
    "responses.cancel": reading("Response").answers("400"),
    "responses.list_input_items": reading("ItemPage", query=InputItemsQuery),
    "conversations.list_all": reading("ConversationPage", query=queries.ConversationListQuery).answers("404"),
    "conversations.create": reading("Conversation", request=changes.ConversationCreation, body_required=False).answers(
        "404"
    ),
    "conversations.retrieve": reading("ConversationWithMessages", query=queries.ConversationQuery),
    "conversations.change": reading("Conversation", request=changes.ConversationChanges),
    "conversations.update": reading("Conversation", request=changes.ConversationUpdate),
    "conversations.remove": reading("ConversationDeleted"),
    "conversation_items.create": reading("ItemPage", request=changes.ItemsCreation),
    "conversation_items.list_all": reading("ItemPage", query=queries.ItemListQuery),
    "conversation_items.retrieve": reading("Item").answers("400"),
    "conversation_items.remove": reading("Conversation").answers("400"),
    "embeddings.create_embeddings": passthrough_operation("Embeddings", request=embeddings.EmbeddingsRequest),
    "embeddings.rerank": passthrough_operation("Ranking", request=rerank.RerankRequest),
    "models.list_models": passthrough_operation("ModelList"),
    "models.retrieve_model": passthrough_operation("Model"),
    "anthropic.create_message": generating(
        "AnthropicMessage", "AnthropicEvent", request=anthropic.MessagesRequest, **_ANTHROPIC
    ),
    "anthropic.count_tokens": passthrough_operation(
        "AnthropicTokenCount", request=anthropic.CountTokensRequest, **_ANTHROPIC
    ),
    "llama_cpp.complete": _NATIVE,
    "llama_cpp.completion_alias": _NATIVE,
    "llama_cpp.infill": generating("NativeCompletions", "NativeCompletion", request=native.InfillRequest),
    "llama_cpp.tokenize": passthrough_operation("Tokens", request=native.TokenizeRequest),
    "llama_cpp.detokenize": passthrough_operation("Detokenized", request=native.DetokenizeRequest),
    "llama_cpp.apply_template": passthrough_operation("Prompt", request=chat.ChatCompletionRequest),
    "llama_cpp.show_props": passthrough_operation("Properties"),
    "model_server.list_slots": administering("Slots", arguments={"fail_on_no_slot": TEXT}),
    "model_server.act_on_slot": administering(
        "SlotAction",
        body=record({}, {"model": nullable(TEXT), "filename": TEXT}),
        needed={"action": words("save", "restore", "erase")},
    ),
    "model_server.change_props": administering("Done", request=native.AnyObject),
    "model_server.list_adapters": administering("Adapters"),
    "model_server.change_adapters": administering("Done", body=native.ADAPTERS.json_schema),
    "model_server.load_model": administering("Done", request=native.AnyObject),
    "model_server.unload_model": administering("Done", request=native.AnyObject),
    "stats.show_stats": reading("Statistics", query=queries.StatsQuery),
    "health.show_health": Operation("Health", guarded=False, also={"503": "Health"}),
    "health.show_liveness": Operation("Liveness", guarded=False),
    "health.show_readiness": Operation("Readiness", guarded=False, also={"503": "Readiness"}),
    "documentation.show_description": Operation("Description"),
    "documentation.show_page": Operation(media=("text/html",)),
    "documentation.show_asset": Operation(media=("text/css", "text/javascript", "image/png")),
}

# What each family is for, by the name of its blueprint.
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
    "llama_cpp": "llama.cpp's own endpoints",
    "model_server": "What shows the model server's inside or changes it: from this machine only",
    "stats": "Usage",
    "health": "The state of every part; needs no key",
    "documentation": "This description",
}
