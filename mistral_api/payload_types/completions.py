"""What the model server generates: the chunks of a stream, whole chat and legacy completions, llama.cpp's own events.

Names of schemas are those of OpenAI's OpenAPI description. llama.cpp's own fields are in its tools/server/README.md. A
field that an engine may leave out is not required, whatever its schema says.
"""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import FunctionCall, ToolCall


class GeneratedMessage(TypedDict, total=False):
    """What the model has generated, ``ChatCompletionResponseMessage``, or as much of it as is there.

    ``reasoning_content`` is llama.cpp's. In a transcript, and in the journal, the message has no ``role``.
    """

    role: str
    content: str | None
    reasoning_content: str | None
    refusal: str | None
    tool_calls: list[ToolCall]
    function_call: FunctionCall


class TopLogprob(TypedDict, total=False):
    """A token that could have been taken, and its log probability. ``id`` is llama.cpp's."""

    id: int
    token: Required[str]
    logprob: Required[float]
    bytes: list[int] | None


class TokenLogprob(TopLogprob, total=False):
    """The token that was taken, ``ChatCompletionTokenLogprob``."""

    top_logprobs: list[TopLogprob]


class Logprobs(TypedDict, total=False):
    """The log probabilities of a choice: ``content`` and ``refusal`` in a chat, the others in a legacy completion."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class PromptTokensDetails(TypedDict, total=False):
    """The part of a prompt that was found in the cache."""

    cached_tokens: int | None


class Usage(TypedDict, total=False):
    """The tokens of a response, ``CompletionUsage``; null where the model server did not say."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    prompt_tokens_details: PromptTokensDetails | None


class Timings(TypedDict, total=False):
    """llama.cpp's measurements: times in milliseconds, ``cache_n`` tokens of the prompt from the cache, ``prompt_n``
    others, and ``predicted_n`` generated."""

    cache_n: int
    prompt_n: int
    predicted_n: int
    prompt_ms: float
    predicted_ms: float
    predicted_per_second: float


class PromptProgress(TypedDict, total=False):
    """llama.cpp's report on a prompt that it reads (``return_progress``): tokens, and the time so far."""

    total: int
    cache: int
    processed: int
    time_ms: float


class VerboseFields(TypedDict, total=False):
    """llama.cpp's verbose form (tools/server/server-task.cpp): the stop sequence that was met."""

    stopping_word: str


# A class cannot declare this name: within one, two leading underscores make it another.
_Verbose = TypedDict("_Verbose", {"__verbose": VerboseFields}, total=False)


class CompletionHead(TypedDict, total=False):
    """What every chunk of a response, and the whole of it, begins with."""

    id: str | None
    created: int
    model: str
    system_fingerprint: str


class _CompletionFields(_Verbose, CompletionHead, total=False):
    usage: Usage | None
    timings: Timings


class FunctionDelta(TypedDict, total=False):
    """A piece of a function call: the name comes first, the arguments piece by piece."""

    name: str
    arguments: str


class CustomDelta(TypedDict, total=False):
    """A piece of a call of a custom tool: the name comes first, the input piece by piece."""

    name: str
    input: str


class ToolCallDelta(TypedDict, total=False):
    """A piece of the tool call with this index, ``ChatCompletionMessageToolCallChunk``.

    ``namespace`` and ``item`` are those of :class:`ToolCall`.
    """

    index: int
    id: str
    type: str
    function: FunctionDelta
    custom: CustomDelta
    namespace: str
    item: str


class Delta(TypedDict, total=False):
    """What a chunk adds to a message, ``ChatCompletionStreamResponseDelta``."""

    role: str
    content: str | None
    reasoning_content: str | None
    refusal: str | None
    tool_calls: list[ToolCallDelta]
    function_call: FunctionDelta


class ChunkChoice(TypedDict, total=False):
    """What a chunk says of one choice: a ``delta`` of a chat, or a piece of ``text`` of a legacy completion."""

    index: int
    delta: Delta
    text: str | None
    finish_reason: str | None
    logprobs: Logprobs | None


class Chunk(_CompletionFields, total=False):
    """An event of a stream, ``CreateChatCompletionStreamResponse`` or ``CreateCompletionResponse``.

    llama.cpp reports its progress and its failures in such events too.
    """

    object: str
    choices: list[ChunkChoice]
    prompt_progress: PromptProgress
    error: JsonObject


class Choice(TypedDict, total=False):
    """One choice of a whole response: a ``message`` of a chat, or the ``text`` of a legacy completion."""

    index: int
    message: GeneratedMessage
    text: str
    finish_reason: str | None
    logprobs: Logprobs | None


class Completion(_CompletionFields, total=False):
    """A whole response, ``CreateChatCompletionResponse`` or ``CreateCompletionResponse``.

    ``session_id`` is ours; ``metadata`` is that of a stored one.
    """

    object: Literal["chat.completion", "text_completion"]
    choices: list[Choice]
    session_id: str
    metadata: dict[str, str]


class LlamaCppEvent(TypedDict, total=False):
    """An event of llama.cpp's own ``/completion`` and ``/infill``, and the whole response, which is the last event.

    Only the last event of an index has ``stop`` true, and the figures.
    """

    index: int
    content: str
    tokens: list[int]
    completion_probabilities: list[Any]
    stop: bool
    stop_type: str
    stopping_word: str
    model: str
    tokens_evaluated: int
    tokens_predicted: int
    timings: Timings
    prompt_progress: PromptProgress
    generation_settings: JsonObject
