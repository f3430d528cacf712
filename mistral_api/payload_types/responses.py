"""The Responses and Conversations APIs: items, requests, the Response object, the events of its stream.

Names of schemas are those of OpenAI's OpenAPI description.
"""

from __future__ import annotations

from typing import Literal, NotRequired, Required, TypedDict

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import InputAudio


class ResponseLogprob(TypedDict):
    """A token with its log probability, ``ResponseLogProb``: without llama.cpp's ids, ``bytes`` never null."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: NotRequired[list[ResponseLogprob]]


class ItemPart(TypedDict, total=False):
    """A part of an item, ``InputContent``, ``OutputContent`` and the texts of a reasoning item."""

    type: Required[str]
    text: str
    refusal: str
    image_url: str
    detail: str | None
    input_audio: InputAudio
    file_data: str
    file_url: str
    file_id: str
    filename: str
    annotations: list[JsonObject]
    logprobs: list[ResponseLogprob]


class _ItemFields(TypedDict, total=False):
    """What items of all types have; those that clients send may have neither."""

    id: str
    status: str


class MessageItem(_ItemFields):
    """A message, ``Message``; in a request its type may be missing."""

    type: NotRequired[Literal["message"]]
    role: str
    content: str | list[ItemPart]


class ReasoningItem(_ItemFields, total=False):
    """The reasoning of a model, ``ReasoningItem``."""

    type: Required[Literal["reasoning"]]
    summary: list[ItemPart]
    content: list[ItemPart]


class FunctionCallItem(_ItemFields):
    """A function call of a model, ``FunctionToolCall``."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(_ItemFields):
    """The output of a function, ``FunctionToolCallOutput``."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ItemPart]
    name: NotRequired[str]


class ItemReference(_ItemFields):
    """A stored item by its id, ``ItemReferenceParam``; its type may be missing."""

    type: NotRequired[Literal["item_reference"]]


# What a model generates.
OutputItem = MessageItem | ReasoningItem | FunctionCallItem
Item = MessageItem | ReasoningItem | FunctionCallItem | FunctionOutputItem | ItemReference


class ResponseTool(TypedDict, total=False):
    """A function, ``FunctionTool``: flat, unlike a chat's. ``parameters`` is a JSON schema."""

    type: Required[str]
    name: Required[str]
    description: str | None
    parameters: JsonObject | None
    strict: bool | None


class NamedResponseTool(TypedDict):
    """A function by its name, ``ToolChoiceFunction``."""

    type: str
    name: str


class ResponseToolChoice(TypedDict, total=False):
    """A named function, or some of the tools, ``ToolChoiceParam``."""

    type: Required[str]
    name: str
    mode: str
    tools: list[NamedResponseTool]


class TextFormat(TypedDict, total=False):
    """The form of an answer, ``TextResponseFormatConfiguration``. ``schema`` is a JSON schema."""

    type: Required[str]
    name: str | None
    description: str | None
    schema: JsonObject | None
    strict: bool | None


class TextOptions(TypedDict, total=False):
    """Options of the answer's text, ``ResponseTextParam``."""

    format: TextFormat
    verbosity: str


class ReasoningOptions(TypedDict, total=False):
    """How much the model reasons, ``Reasoning``."""

    effort: str | None
    summary: str | None
    generate_summary: str | None


class ResponsePayload(TypedDict, total=False):
    """A valid request of the Responses API, ``CreateResponse``, as far as our code reads it; ``session_id`` is ours.

    ``conversation`` is an id, whatever its form was. Other fields are passed on to the model server.
    """

    model: str
    input: str | list[Item]
    instructions: str
    previous_response_id: str
    conversation: str
    session_id: str
    background: bool
    stream: bool
    store: bool
    metadata: dict[str, str]
    include: list[str]
    tools: list[ResponseTool]
    tool_choice: str | ResponseToolChoice
    parallel_tool_calls: bool
    max_tool_calls: int
    max_output_tokens: int
    temperature: float
    top_p: float
    top_logprobs: int
    text: TextOptions
    reasoning: ReasoningOptions
    truncation: str
    prompt_cache_key: str
    safety_identifier: str
    user: str


class ResponseError(TypedDict):
    """Why a response failed, ``ResponseError``."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """Why an answer was cut off."""

    reason: str


class ConversationId(TypedDict):
    """The conversation that a response belongs to."""

    id: str


class InputTokensDetails(TypedDict):
    """Tokens of the prompt that were read from the cache, and written to it."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    """The tokens of reasoning."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """The tokens of a response, ``ResponseUsage``."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Response(TypedDict):
    """The Response object, ``Response``; ``session_id`` is ours."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    conversation: ConversationId | None
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningOptions
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextOptions
    tool_choice: str | ResponseToolChoice
    tools: list[ResponseTool]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    session_id: NotRequired[str]


class ResponseEvent(TypedDict, total=False):
    """An event of a response's stream, ``ResponseStreamEvent``: its type says which of the fields it has."""

    type: Required[str]
    sequence_number: int
    response: Response
    item_id: str
    output_index: int
    content_index: int
    item: OutputItem
    part: ItemPart
    delta: str
    text: str
    refusal: str
    name: str
    arguments: str
    logprobs: list[ResponseLogprob]
    code: str | None
    message: str
    param: str | None
