"""The types of JSON data name the fields that the shapes of requests and response bodies declare."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.analytics.gpu_stats import CardStatistics
from mistral_api.analytics.usage_stats import UsageStats
from mistral_api.conversations.conversation import ConversationBody, ConversationSummary, MessageBody
from mistral_api.errors import ErrorBody
from mistral_api.generation.anthropic_renderer import AnthropicErrorBody
from mistral_api.payload_types import anthropic, chat, completions, ollama, responses
from mistral_api.upstream.model_servers import ModelServerHealth
from mistral_api.web.anthropic import AnthropicTokenCount
from mistral_api.web.models import ModelBody
from mistral_api.web.monitoring import HealthBody
from mistral_api.web.responses import InputTokens
from mistral_api.wire import (
    ChatCompletionRequest,
    CompletionListQuery,
    CompletionRequest,
    ConversationListQuery,
    ConversationQuery,
    EmbeddingsRequest,
    RerankRequest,
    StatsQuery,
    generation_bodies,
    monitoring_bodies,
    pagination,
    queries,
    stored_bodies,
)
from mistral_api.wire import anthropic as anthropic_shapes
from mistral_api.wire import ollama as ollama_shapes
from mistral_api.wire.embeddings import EmbeddingsPayload, RerankPayload
from mistral_api.wire.llama_cpp import COMPLETION, InfillRequest, LlamaCppCompletionRequest
from mistral_api.wire.request_schema import RequestSchema
from mistral_api.wire.responses import ResponseRequest
from mistral_api.wire.shapes import Component

# Fields of requests that are passed on unchecked, or that we add.
UNDECLARED = {"verbose", "thinking_budget_tokens", "shown_model"}
ITEM_TYPES = [
    responses.MessageItem,
    responses.ReasoningItem,
    responses.FunctionCallItem,
    responses.FunctionOutputItem,
    responses.CustomCallItem,
    responses.CustomOutputItem,
    responses.ShellCallItem,
    responses.ShellOutputItem,
    responses.LocalShellCallItem,
    responses.LocalShellOutputItem,
    responses.ApplyPatchCallItem,
    responses.ApplyPatchOutputItem,
    responses.ToolSearchCallItem,
    responses.ToolSearchOutputItem,
    responses.AdditionalToolsItem,
    responses.AgentMessageItem,
]


def _names(payload_type: Any) -> set[str]:
    return set(payload_type.__annotations__)


@pytest.mark.parametrize(
    ("body", "payload_type"),
    [
        (generation_bodies.ERROR, ErrorBody),
        (generation_bodies.USAGE, completions.Usage),
        (generation_bodies.MODEL, ModelBody),
        (stored_bodies.RESPONSE, responses.Response),
        (stored_bodies.RESPONSE_DELETED, pagination.Deletion),
        (stored_bodies.INPUT_TOKENS, InputTokens),
        (stored_bodies.ITEM_PAGE, pagination.Page),
        (stored_bodies.CONVERSATION, ConversationSummary),
        (stored_bodies.CONVERSATION_WITH_MESSAGES, ConversationBody),
        (monitoring_bodies.HEALTH, HealthBody),
        (monitoring_bodies.MODEL_SERVER_HEALTH, ModelServerHealth),
        (monitoring_bodies.STATISTICS, UsageStats),
        (monitoring_bodies.CARD_STATISTICS, CardStatistics),
        (anthropic_shapes.ANTHROPIC_MESSAGE, anthropic.AnthropicMessage),
        (anthropic_shapes.ANTHROPIC_TOKEN_COUNT, AnthropicTokenCount),
        (anthropic_shapes.ANTHROPIC_ERROR, AnthropicErrorBody),
        (ollama_shapes.OLLAMA_CHAT, ollama.OllamaChat),
        (ollama_shapes.OLLAMA_GENERATE, ollama.OllamaGenerate),
        (ollama_shapes.OLLAMA_ERROR, ollama.OllamaErrorBody),
        (ollama_shapes.OLLAMA_MODELS, ollama.OllamaModelList),
        (ollama_shapes.OLLAMA_RUNNING, ollama.OllamaRunningModels),
        (ollama_shapes.OLLAMA_SHOW, ollama.OllamaShow),
        (ollama_shapes.OLLAMA_VERSION, ollama.OllamaVersion),
        (ollama_shapes.OLLAMA_EMBEDDINGS, ollama.OllamaEmbeddings),
        (ollama_shapes.OLLAMA_EMBEDDING, ollama.OllamaEmbedding),
        (ollama_shapes.OLLAMA_PROGRESS, ollama.OllamaProgress),
    ],
    ids=lambda each: each.name if isinstance(each, Component) else "",
)
def test_type_of_a_body_has_the_declared_fields(body: Component, payload_type: Any) -> None:
    assert _names(payload_type) == set(body.definition["properties"])


@pytest.mark.parametrize(
    ("body", "payload_type"),
    [
        (generation_bodies.CHAT_COMPLETION, completions.Completion),
        (generation_bodies.COMPLETION, completions.Completion),
        (generation_bodies.CHAT_COMPLETION_CHUNK, completions.Chunk),
        (generation_bodies.COMPLETION_CHUNK, completions.Chunk),
        (stored_bodies.CONVERSATION_MESSAGE, MessageBody),
        (stored_bodies.RESPONSE_EVENT, responses.ResponseEvent),
        (anthropic_shapes.ANTHROPIC_EVENT, anthropic.AnthropicEvent),
        (COMPLETION, completions.LlamaCppEvent),
    ],
    ids=lambda each: each.name if isinstance(each, Component) else "",
)
def test_type_of_a_partly_declared_body_has_the_declared_fields(body: Component, payload_type: Any) -> None:
    assert _names(payload_type) >= set(body.definition["properties"])


def test_types_of_items_have_the_declared_fields() -> None:
    declared = stored_bodies.ITEM.definition["anyOf"]
    for payload_type, item in zip(ITEM_TYPES, declared, strict=True):
        assert _names(payload_type) >= set(item["properties"])


@pytest.mark.parametrize(
    ("payload_type", "schemas"),
    [
        (chat.ChatPayload, [ChatCompletionRequest, CompletionRequest, LlamaCppCompletionRequest, InfillRequest]),
        (responses.ResponsePayload, [ResponseRequest]),
        (EmbeddingsPayload, [EmbeddingsRequest]),
        (RerankPayload, [RerankRequest]),
        # What is common with a chat is checked as a chat's.
        (anthropic.MessagesPayload, [anthropic_shapes.MessagesRequest, ChatCompletionRequest]),
        (ollama.OllamaChatPayload, [ollama_shapes.OllamaChatRequest]),
        (ollama.OllamaGeneratePayload, [ollama_shapes.OllamaGenerateRequest]),
        (ollama.OllamaEmbedPayload, [ollama_shapes.OllamaEmbedRequest, ollama_shapes.OllamaEmbeddingsRequest]),
        (queries.MessagePageFilter, [ConversationQuery]),
        (queries.ConversationFilter, [ConversationListQuery]),
        (queries.CompletionFilter, [CompletionListQuery]),
        (queries.StatsRange, [StatsQuery]),
    ],
)
def test_type_of_a_request_names_only_fields_that_are_checked(
    payload_type: Any, schemas: list[type[RequestSchema[Any]]]
) -> None:
    checked = {name for schema in schemas for name in schema().fields}
    assert _names(payload_type) <= checked | UNDECLARED
