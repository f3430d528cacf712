"""The Responses and Conversations APIs: items, requests, the Response object, the events of its stream.

Names of schemas are those of OpenAI's OpenAPI description.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Required, TypedDict

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
    encrypted_content: str | None


class FunctionCallItem(_ItemFields):
    """A function call of a model, ``FunctionToolCall``. ``namespace`` is that of the function, where it has one."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    namespace: NotRequired[str | None]


class CustomCallItem(_ItemFields):
    """The call of a custom tool, ``CustomToolCall``."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str
    namespace: NotRequired[str | None]


class ShellAction(TypedDict, total=False):
    """What a shell is to do, ``FunctionShellAction``."""

    commands: Required[list[str]]
    timeout_ms: int | None
    max_output_length: int | None


class ShellCallItem(_ItemFields):
    """The call of a shell, ``FunctionShellCall``."""

    type: Literal["shell_call"]
    call_id: str
    action: ShellAction
    environment: NotRequired[JsonObject | None]


class LocalShellAction(TypedDict, total=False):
    """The program that a local shell is to run, ``LocalShellExecAction``."""

    type: Required[Literal["exec"]]
    command: Required[list[str]]
    env: Required[dict[str, str] | None]
    timeout_ms: int | None
    user: str | None
    working_directory: str | None


class LocalShellCallItem(_ItemFields):
    """The call of a local shell, ``LocalShellToolCall``."""

    type: Literal["local_shell_call"]
    call_id: str | None
    action: LocalShellAction


class PatchOperation(TypedDict, total=False):
    """The change of one file, ``ApplyPatchCreateFileOperation`` and its kin."""

    type: Required[str]
    path: Required[str]
    diff: str


class ApplyPatchCallItem(_ItemFields):
    """The call of the patch tool, ``ApplyPatchToolCall``."""

    type: Literal["apply_patch_call"]
    call_id: str
    operation: PatchOperation


class ToolSearchCallItem(_ItemFields):
    """The call of the tool search, ``ToolSearchCall``: the client searches."""

    type: Literal["tool_search_call"]
    call_id: str | None
    execution: str
    arguments: Any


class FunctionOutputItem(_ItemFields):
    """The output of a function, ``FunctionToolCallOutput``."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ItemPart]
    name: NotRequired[str]


class CustomOutputItem(_ItemFields):
    """The output of a custom tool, ``CustomToolCallOutput``."""

    type: Literal["custom_tool_call_output"]
    call_id: str
    output: str | list[ItemPart]
    name: NotRequired[str | None]


class ShellOutputItem(_ItemFields):
    """The outputs of a shell's commands, ``FunctionShellCallOutput``."""

    type: Literal["shell_call_output"]
    call_id: str
    output: list[JsonObject]
    max_output_length: NotRequired[int | None]


class LocalShellOutputItem(_ItemFields):
    """The output of a local shell, ``LocalShellToolCallOutput``; its ``id`` may be that of the call."""

    type: Literal["local_shell_call_output"]
    call_id: NotRequired[str | None]
    output: str


class ApplyPatchOutputItem(_ItemFields):
    """Whether a patch was applied, ``ApplyPatchToolCallOutput``: its status is ``completed`` or ``failed``."""

    type: Literal["apply_patch_call_output"]
    call_id: str
    output: NotRequired[str | None]


class ToolSearchOutputItem(_ItemFields):
    """The tools that a search has found, ``ToolSearchOutput``: from here on the model may call them."""

    type: Literal["tool_search_output"]
    call_id: NotRequired[str | None]
    execution: NotRequired[str]
    tools: list[ResponseTool]


class AdditionalToolsItem(_ItemFields):
    """Tools that a client adds in the middle of its input, ``AdditionalTools``."""

    type: Literal["additional_tools"]
    role: str
    tools: list[ResponseTool]


class AgentMessageItem(_ItemFields):
    """What one agent of a client says to another (openai/codex, codex-rs/protocol/src/models.rs ``AgentMessage``)."""

    type: Literal["agent_message"]
    author: str
    recipient: str
    content: list[ItemPart]


class ItemReference(_ItemFields):
    """A stored item by its id, ``ItemReferenceParam``; its type may be missing."""

    type: NotRequired[Literal["item_reference"]]


# The calls of tools that a model makes, by the kind of the tool.
CallItem = (
    FunctionCallItem | CustomCallItem | ShellCallItem | LocalShellCallItem | ApplyPatchCallItem | ToolSearchCallItem
)
# What a model generates.
OutputItem = MessageItem | ReasoningItem | CallItem
ToolOutputItem = (
    FunctionOutputItem
    | CustomOutputItem
    | ShellOutputItem
    | LocalShellOutputItem
    | ApplyPatchOutputItem
    | ToolSearchOutputItem
)
Item = OutputItem | ToolOutputItem | AdditionalToolsItem | AgentMessageItem | ItemReference


class CustomToolFormat(TypedDict, total=False):
    """What a custom tool takes: any text, or what fits a grammar; flat, unlike a chat's."""

    type: Required[str]
    syntax: str
    definition: str


class ResponseTool(TypedDict, total=False):
    """A tool of any kind, ``Tool``: flat, unlike a chat's. ``parameters`` is a JSON schema.

    ``tools`` are those of a namespace. ``execution`` says who runs a tool search. Tools that only OpenAI runs have
    other fields.
    """

    type: Required[str]
    name: str
    description: str | None
    parameters: JsonObject | None
    strict: bool | None
    format: CustomToolFormat | None
    tools: list[ResponseTool]
    execution: str


class NamedResponseTool(TypedDict, total=False):
    """A tool by its type, and by its name where its type has several."""

    type: Required[str]
    name: str
    namespace: str


class ResponseToolChoice(TypedDict, total=False):
    """A named tool, or some of the tools, ``ToolChoiceParam``."""

    type: Required[str]
    name: str
    namespace: str
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
    input: str
    command: str
    command_index: int
    logprobs: list[ResponseLogprob]
    code: str | None
    message: str
    param: str | None
