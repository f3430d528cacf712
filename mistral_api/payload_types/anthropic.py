"""Anthropic's Messages API: requests and their content blocks, messages, the events of a stream.

Names of types are those of the ``anthropic`` package.
"""

from __future__ import annotations

from typing import Literal, NotRequired, Required, TypedDict

from mistral_api.payload_types import JsonObject


class TextBlock(TypedDict):
    """A text, ``TextBlock`` and ``TextBlockParam``."""

    type: Literal["text"]
    text: str


class ThinkingBlock(TypedDict):
    """The reasoning of a model, ``ThinkingBlock`` and ``ThinkingBlockParam``."""

    type: Literal["thinking"]
    thinking: str
    signature: NotRequired[str]


class ToolUseBlock(TypedDict):
    """A call of a tool, ``ToolUseBlock`` and ``ToolUseBlockParam``; ``id`` is null where the model server gave none."""

    type: Literal["tool_use"]
    id: str | None
    name: str
    input: JsonObject


class ImageSource(TypedDict, total=False):
    """The address of an image, or its base64: ``URLImageSourceParam``, ``Base64ImageSourceParam``."""

    type: Required[str]
    url: str
    media_type: str
    data: str


class ImageBlock(TypedDict):
    """An image, ``ImageBlockParam``."""

    type: Literal["image"]
    source: ImageSource


class TextSource(TypedDict):
    """The text of a document, ``PlainTextSourceParam``."""

    type: Literal["text"]
    data: str


class ContentSource(TypedDict):
    """A document of texts and images, ``ContentBlockSourceParam``."""

    type: Literal["content"]
    content: str | list[TextBlock | ImageBlock]


class DocumentBlock(TypedDict):
    """A document, ``DocumentBlockParam``."""

    type: Literal["document"]
    source: TextSource | ContentSource
    title: NotRequired[str | None]
    context: NotRequired[str | None]


class SearchResultBlock(TypedDict):
    """A result of a search; ``source`` says where it was found, ``SearchResultBlockParam``."""

    type: Literal["search_result"]
    title: str
    source: str
    content: list[TextBlock]


class ToolReferenceBlock(TypedDict):
    """A tool that a search among the tools has found, ``ToolReferenceBlockParam``."""

    type: Literal["tool_reference"]
    tool_name: str


class ToolResultBlock(TypedDict):
    """The result of a tool, ``ToolResultBlockParam``."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: NotRequired[str | list[ContentBlock | ToolReferenceBlock] | None]
    is_error: NotRequired[bool | None]


class CompactionBlock(TypedDict):
    """The summary of earlier messages, ``BetaCompactionBlockParam``."""

    type: Literal["compaction"]
    content: NotRequired[str | None]


class ServerBlock(TypedDict):
    """What Anthropic's servers did within an answer, such as ``ServerToolUseBlockParam``: nothing here reads it."""

    type: Literal["redacted_thinking", "server_tool_use", "web_search_tool_result"]


class ChangedTool(TypedDict):
    """One of the tools by its name, ``BetaToolChangeToolReferenceParam``; tools of MCP servers are of other types."""

    type: Literal["tool_reference", "mcp_tool_reference", "mcp_toolset_reference"]
    name: NotRequired[str]


class ToolChangeBlock(TypedDict):
    """A change of the tools amid the messages, ``BetaRequestToolAdditionBlockParam`` and the one for removals."""

    type: Literal["tool_addition", "tool_removal"]
    tool: ChangedTool


# What users and tools send, and what the assistant has said.
ContentBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock
UserBlock = ContentBlock | CompactionBlock | ToolResultBlock
AssistantBlock = TextBlock | ThinkingBlock | CompactionBlock | ServerBlock | ToolUseBlock
SystemBlock = TextBlock | ToolChangeBlock


class UserMessage(TypedDict):
    """A message of the user, ``MessageParam``."""

    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantMessage(TypedDict):
    """A message of the assistant, ``MessageParam``."""

    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemMessage(TypedDict):
    """Instructions between the other messages."""

    role: Literal["system"]
    content: str | list[SystemBlock]


RequestMessage = UserMessage | AssistantMessage | SystemMessage


class AnthropicTool(TypedDict):
    """A tool, ``ToolParam``. ``input_schema`` is a JSON schema, which tools that Anthropic has defined do not have.

    ``defer_loading``: the model is not told of it before a search among the tools has found it.
    """

    name: str
    type: NotRequired[str | None]
    input_schema: NotRequired[JsonObject]
    defer_loading: NotRequired[bool | None]
    description: NotRequired[str | None]
    strict: NotRequired[bool | None]


class AnthropicToolChoice(TypedDict, total=False):
    """The choice among the tools, ``ToolChoiceParam``."""

    type: Required[str]
    name: str
    disable_parallel_tool_use: bool | None


class ThinkingConfig(TypedDict, total=False):
    """Whether the model reasons, and how many tokens that may take: ``ThinkingConfigParam``."""

    type: Required[str]
    budget_tokens: int


class OutputFormat(TypedDict):
    """The JSON schema of the answer, ``JSONOutputFormatParam``."""

    type: str
    schema: JsonObject


class OutputConfig(TypedDict, total=False):
    """How much the model does for an answer, and its form: ``OutputConfigParam``."""

    effort: str | None
    format: OutputFormat | None


class MessagesPayload(TypedDict, total=False):
    """A valid request, ``MessageCreateParams``, as far as our code reads it; other fields are passed on.

    ``chat_template_kwargs`` is llama.cpp's.
    """

    messages: Required[list[RequestMessage]]
    max_tokens: int
    system: str | list[TextBlock]
    tools: list[AnthropicTool]
    tool_choice: AnthropicToolChoice
    mcp_servers: list[JsonObject]
    stop_sequences: list[str]
    stream: bool
    thinking: ThinkingConfig
    output_config: OutputConfig
    chat_template_kwargs: JsonObject | None


class AnthropicUsage(TypedDict):
    """The tokens of a message, ``Usage``: those read from the cache are not among the ``input_tokens``."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class StopFields(TypedDict):
    """Why a message ended."""

    stop_reason: str | None
    stop_sequence: str | None


class AnthropicMessage(StopFields):
    """A whole message, ``Message``; ``session_id`` is ours."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ResponseBlock]
    usage: AnthropicUsage
    session_id: NotRequired[str]


ResponseBlock = TextBlock | ThinkingBlock | ToolUseBlock


class BlockDelta(TypedDict, total=False):
    """A piece of a block, ``RawContentBlockDelta``."""

    type: Required[str]
    text: str
    thinking: str
    partial_json: str


class AnthropicEvent(TypedDict, total=False):
    """An event of a stream, ``RawMessageStreamEvent``: its type says which of the fields it has."""

    type: Required[str]
    message: AnthropicMessage
    index: int
    content_block: ResponseBlock
    delta: BlockDelta | StopFields
    usage: AnthropicUsage
