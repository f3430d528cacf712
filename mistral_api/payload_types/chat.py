"""Messages, and the requests that chats, legacy completions and llama.cpp's own endpoints take.

Names of schemas are those of OpenAI's OpenAPI description. llama.cpp's own fields are in its tools/server/README.md.
"""

from __future__ import annotations

from typing import Required, TypedDict

from mistral_api.payload_types import JsonObject


class MediaPrompt(TypedDict, total=False):
    """A prompt with images and sounds, of llama.cpp's ``/completion``."""

    prompt_string: Required[str]
    multimodal_data: list[str]


# What legacy completions take as a prompt (``CreateCompletionRequest.prompt``) besides a string: strings, tokens, or
# arrays of tokens. llama.cpp's own endpoint also takes arrays that mix strings and tokens.
Prompts = list[str | int | list[str | int]]


class FunctionCall(TypedDict):
    """The function that is called. ``arguments`` are JSON text, and no JSON where the answer was cut short."""

    name: str
    arguments: str


class CustomCall(TypedDict):
    """The call of a custom tool, ``ChatCompletionMessageCustomToolCall.custom``: its input is free text."""

    name: str
    input: str


class ToolCall(TypedDict, total=False):
    """A call of a tool, ``ChatCompletionMessageToolCall``: it has a ``function``, or a ``custom`` call.

    ``id`` is null where the model server gave none. ``index``: the number of a stored call before which another one was
    deleted. ``namespace`` is that of the tool in the Responses API. ``item`` is the type of its item there, where the
    call is of a tool that chat completions do not have; its function's arguments say what the item says.
    """

    id: str | None
    type: Required[str]
    function: FunctionCall
    custom: CustomCall
    namespace: str
    item: str
    index: int


class ImageUrl(TypedDict, total=False):
    """The address of an image or a video, or its data as a data URL."""

    url: Required[str]
    detail: str


class InputAudio(TypedDict, total=False):
    """A sound: its base64, and its format."""

    data: Required[str]
    format: str


class FileData(TypedDict, total=False):
    """A file: a data URL, or the address or the id under which it can be found."""

    file_data: str
    file_url: str
    file_id: str
    filename: str


class ContentPart(TypedDict, total=False):
    """A part of a message, ``ChatCompletionRequestMessageContentPart…``. Its type names the field with its value."""

    type: Required[str]
    text: str
    refusal: str
    image_url: ImageUrl
    video_url: ImageUrl
    input_audio: InputAudio
    input_video: JsonObject
    file: FileData


# In the record of a legacy completion the content of the user's message is its prompts.
MessageContent = str | list[ContentPart] | Prompts | None


class ChatMessage(TypedDict, total=False):
    """A message, ``ChatCompletionRequestMessage``. ``content`` is null, or absent, where something else is said.

    ``reasoning_content`` is llama.cpp's. ``item`` is the type of the message's item in the Responses API, where that is
    neither a message nor the output of a function; ``author`` and ``recipient`` are those of an ``agent_message``.
    """

    role: Required[str]
    content: MessageContent
    reasoning_content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | None
    function_call: FunctionCall | None
    name: str | None
    tool_call_id: str | None
    item: str
    author: str
    recipient: str


class FunctionDefinition(TypedDict, total=False):
    """A function that the model may call, ``FunctionObject``. ``parameters`` is a JSON schema."""

    name: Required[str]
    description: str | None
    parameters: JsonObject | None
    strict: bool | None


class GrammarDefinition(TypedDict):
    """A grammar in one of the forms of OpenAI's custom tools: ``syntax`` is ``lark`` or ``regex``."""

    syntax: str
    definition: str


class CustomFormat(TypedDict, total=False):
    """What a custom tool takes: any text, or what fits a ``grammar``."""

    type: Required[str]
    grammar: GrammarDefinition


class CustomDefinition(TypedDict, total=False):
    """A custom tool, ``ChatCompletionCustomTool.custom``: the model sends it free text."""

    name: Required[str]
    description: str | None
    format: CustomFormat | None


class Tool(TypedDict, total=False):
    """A tool, ``ChatCompletionTool``: a ``function``, or a ``custom`` tool."""

    type: Required[str]
    function: FunctionDefinition
    custom: CustomDefinition


class FunctionName(TypedDict):
    """A function by its name."""

    name: str


class NamedTool(TypedDict, total=False):
    """A tool by its name, ``ChatCompletionNamedToolChoice``."""

    type: Required[str]
    function: FunctionName
    custom: FunctionName


class AllowedTools(TypedDict):
    """Some of the tools, and whether one of them has to be called, ``ChatCompletionAllowedTools``."""

    mode: str
    tools: list[NamedTool]


class ToolChoice(TypedDict, total=False):
    """A named tool, or some of the tools, ``ChatCompletionToolChoiceOption``."""

    type: Required[str]
    function: FunctionName
    custom: FunctionName
    allowed_tools: AllowedTools


class NamedSchema(TypedDict, total=False):
    """The JSON schema of an answer, ``ResponseFormatJsonSchema.json_schema``."""

    name: str | None
    description: str | None
    schema: JsonObject | None
    strict: bool | None


class ResponseFormat(TypedDict, total=False):
    """The form of an answer; llama.cpp also takes a ``schema`` with ``json_object``."""

    type: Required[str]
    json_schema: NamedSchema
    schema: JsonObject


class StreamOptions(TypedDict, total=False):
    """Options of a stream, ``ChatCompletionStreamOptions``."""

    include_usage: bool
    include_obfuscation: bool


class ExtraFile(TypedDict, total=False):
    """Another file of the project, for llama.cpp's ``/infill``."""

    text: Required[str]
    filename: str


class ChatPayload(TypedDict, total=False):
    """A request for a chat or a completion, valid, as far as our code reads it; all other fields are passed on.

    The fields of ``CreateChatCompletionRequest`` and ``CreateCompletionRequest``, those of llama.cpp's own endpoints,
    and ours.
    """

    model: str
    messages: list[ChatMessage]
    stream: bool
    stream_options: StreamOptions
    n: int
    seed: int
    temperature: float
    max_tokens: int
    max_completion_tokens: int
    tools: list[Tool]
    tool_choice: str | ToolChoice
    parallel_tool_calls: bool
    functions: list[FunctionDefinition]
    function_call: str | FunctionName
    response_format: ResponseFormat
    grammar: str
    reasoning_effort: str
    stop: str | list[str]
    store: bool
    metadata: dict[str, str]
    # In a legacy completion, and in llama.cpp's own requests, ``logprobs`` is how many alternatives are wanted.
    logprobs: bool | int
    top_logprobs: int
    prompt: str | Prompts | MediaPrompt | list[str | list[str | int] | MediaPrompt]
    echo: bool
    suffix: str
    best_of: int
    # llama.cpp's
    n_predict: int
    n_probs: int
    id_slot: int
    cache_prompt: bool
    post_sampling_probs: bool
    return_progress: bool
    timings_per_token: bool
    verbose: bool
    response_fields: list[str]
    chat_template_kwargs: JsonObject
    thinking_budget_tokens: int
    input_prefix: str | list[str | int]
    input_suffix: str | list[str | int]
    input_extra: list[ExtraFile]
    # Ours
    session_id: str
    use_history: bool
    truncation: str
    shown_model: str
