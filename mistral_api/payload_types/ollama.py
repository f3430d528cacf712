"""Ollama's own API: requests, messages, responses, and what it says of models.

Names of types are those of Ollama's ``api/types.go`` with ``Ollama`` before them. Durations are in nanoseconds.
"""

from __future__ import annotations

from typing import Literal, NotRequired, Required, TypedDict

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import Tool
from mistral_api.payload_types.completions import TokenLogprob


class OllamaFunction(TypedDict, total=False):
    """The function that is called; its arguments are an object, and JSON text from some clients."""

    index: int
    name: Required[str]
    arguments: JsonObject | str


class OllamaToolCall(TypedDict, total=False):
    """A call of a tool. Older clients know no ``id``."""

    id: str
    function: Required[OllamaFunction]


class OllamaMessage(TypedDict, total=False):
    """A message. ``images`` are base64; ``tool_name`` and ``tool_call_id`` say whose result a tool's message is."""

    role: Required[str]
    content: str
    thinking: str
    images: list[str]
    tool_calls: list[OllamaToolCall]
    tool_name: str
    tool_call_id: str


class OllamaOptions(TypedDict, total=False):
    """The options that mean something here; others are for the start of a model."""

    num_ctx: int
    num_keep: int
    num_predict: int
    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_last_n: int
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    stop: str | list[str]


class OllamaModelRequest(TypedDict, total=False):
    """What all requests have."""

    model: str
    keep_alive: float | str
    options: OllamaOptions
    truncate: bool


class OllamaGeneration(OllamaModelRequest, total=False):
    """What chats and completions have in common, and our own fields."""

    stream: bool
    format: str | JsonObject
    think: bool | str
    logprobs: bool
    top_logprobs: int
    session_id: str
    use_history: bool
    store: bool
    metadata: dict[str, str]


class OllamaChatPayload(OllamaGeneration, total=False):
    """A valid request of ``/api/chat``."""

    messages: list[OllamaMessage]
    tools: list[Tool]


class OllamaGeneratePayload(OllamaGeneration, total=False):
    """A valid request of ``/api/generate``."""

    prompt: str
    suffix: str
    system: str
    template: str
    raw: bool
    context: list[int]
    images: list[str]


class OllamaEmbedPayload(OllamaModelRequest, total=False):
    """A valid request of ``/api/embed``, or of the older ``/api/embeddings``, which has ``prompt``."""

    input: str | list[str]
    dimensions: int
    prompt: str


class OllamaFigures(TypedDict, total=False):
    """What a generation took."""

    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


class _OllamaHead(TypedDict):
    model: str
    created_at: str
    done: bool


class OllamaChat(_OllamaHead, OllamaFigures, total=False):
    """A line of a stream of ``/api/chat``, or the whole response. The last line has the figures.

    ``session_id`` is ours, and only in a response that does not stream.
    """

    message: Required[OllamaMessage]
    done_reason: str
    logprobs: list[TokenLogprob]
    session_id: str


class OllamaGenerate(_OllamaHead, OllamaFigures, total=False):
    """A line of a stream of ``/api/generate``, or the whole response."""

    response: Required[str]
    thinking: str
    done_reason: str
    context: list[int]
    logprobs: list[TokenLogprob]
    session_id: str


class OllamaErrorBody(TypedDict):
    """An error, as a body or as the last line of a stream."""

    error: str


class OllamaDetails(TypedDict):
    """What a model is, in a few words."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(TypedDict):
    """A model in the list of ``/api/tags``."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails
    capabilities: list[str]


class OllamaModelList(TypedDict):
    """The response of ``/api/tags``."""

    models: list[OllamaModel]


class OllamaRunningModel(TypedDict):
    """A model that is loaded, in the list of ``/api/ps``; sizes in bytes."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaRunningModels(TypedDict):
    """The response of ``/api/ps``."""

    models: list[OllamaRunningModel]


class OllamaShow(TypedDict):
    """The response of ``/api/show``. ``model_info`` is the metadata of the model's file."""

    license: str
    modelfile: str
    parameters: str
    template: str
    system: str
    details: OllamaDetails
    model_info: JsonObject
    capabilities: list[str]
    modified_at: str


class OllamaVersion(TypedDict):
    """The response of ``/api/version``."""

    version: str


class OllamaEmbeddings(TypedDict):
    """The response of ``/api/embed``."""

    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]


class OllamaEmbedding(TypedDict):
    """The response of ``/api/embeddings``."""

    embedding: list[float]


class OllamaProgress(TypedDict):
    """A line of a stream of ``/api/pull``, or the whole response."""

    status: Literal["success"]
