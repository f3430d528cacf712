"""Shapes of OpenAI's response bodies: errors, completions and their chunks, embeddings, rankings and models."""

from __future__ import annotations

from mistral_api.wire.container_shapes import Array, Object, TaggedUnion, optional, required
from mistral_api.wire.pagination import deleted, page, whole_list
from mistral_api.wire.shapes import (
    ANYTHING,
    COUNT,
    UNIX_SECONDS,
    AnyOf,
    Component,
    Constant,
    Integer,
    Nullable,
    Number,
    Shape,
    StringEnum,
    Text,
)

_ERROR = Object(required(message=Text(1), type=Text(1), param=Nullable(Text()), code=Nullable(Text())))
ERROR = Component(
    "Error",
    Object(required(error=_ERROR.with_keywords(additionalProperties=False))).with_keywords(additionalProperties=False),
)
USAGE = Component(
    "Usage",
    Object(
        required(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT),
        optional(prompt_tokens_details=Nullable(Object(optional(cached_tokens=Nullable(COUNT))))),
    ),
)

_CALL = TaggedUnion(
    "type",
    {
        "function": Object(required(function=Object(required(name=Text(), arguments=Text())))),
        "custom": Object(required(custom=Object(required(name=Text(), input=Text())))),
    },
    required(id=Text(), type=StringEnum("function", "custom")),
)
_TOKEN_LOGPROB = Object(
    required(token=Text(), logprob=Number(), bytes=Nullable(Array(Integer())), top_logprobs=Array(Object()))
)
_LOGPROBS = Nullable(
    Object(required(content=Nullable(Array(_TOKEN_LOGPROB))), optional(refusal=Nullable(Array(ANYTHING))))
)
_MESSAGE = Object(
    required(role=Constant("assistant"), content=Nullable(Text()), refusal=Nullable(Text())),
    optional(tool_calls=Array(_CALL), reasoning_content=Nullable(Text())),
)
_CALL_DELTA = Object(
    required(index=COUNT),
    optional(id=Text(), type=StringEnum("function", "custom"), function=Object(), custom=Object()),
)
_DELTA = Object(
    optional(
        role=Constant("assistant"),
        content=Nullable(Text()),
        reasoning_content=Nullable(Text()),
        tool_calls=Array(_CALL_DELTA),
    )
)
_FINISH_REASON = Nullable(Text())


def _completion(kind: str, choice: Shape) -> Shape:
    return Object(
        required(
            id=Text(),
            created=UNIX_SECONDS,
            model=Text(),
            object=Constant(kind),
            choices=Array(choice),
            usage=USAGE,
        ),
        # What llama.cpp and this server add.
        optional(timings=Object(), session_id=Text(), metadata=Nullable(Object())),
    )


def _chunk(kind: str, choice: Shape) -> Shape:
    return Object(
        required(id=Text(), created=UNIX_SECONDS, model=Text(), object=Constant(kind), choices=Array(choice)),
        optional(usage=Nullable(USAGE)),
    )


CHAT_COMPLETION = Component(
    "ChatCompletion",
    _completion(
        "chat.completion",
        Object(required(index=COUNT, message=_MESSAGE, finish_reason=_FINISH_REASON, logprobs=_LOGPROBS)),
    ),
)
CHAT_COMPLETION_CHUNK = Component(
    "ChatCompletionChunk",
    _chunk(
        "chat.completion.chunk",
        Object(required(index=COUNT, delta=_DELTA, finish_reason=_FINISH_REASON), optional(logprobs=_LOGPROBS)),
    ),
)
COMPLETION = Component(
    "Completion",
    _completion(
        "text_completion",
        Object(required(index=COUNT, text=Text(), finish_reason=_FINISH_REASON, logprobs=Nullable(Object()))),
    ),
)
COMPLETION_CHUNK = Component(
    "CompletionChunk",
    _chunk("text_completion", Object(required(index=COUNT, text=Text(), finish_reason=_FINISH_REASON))),
)
CHAT_COMPLETION_PAGE = Component("ChatCompletionPage", page(CHAT_COMPLETION))
CHAT_COMPLETION_DELETED = Component("ChatCompletionDeleted", deleted("chat.completion.deleted"))
CHAT_COMPLETION_MESSAGE_PAGE = Component(
    "ChatCompletionMessagePage",
    page(
        Object(
            required(
                id=Text(),
                role=Text(),
                content=Nullable(Text()),
                content_parts=Nullable(Array(Object())),
                refusal=Nullable(Text()),
                name=Nullable(Text()),
            )
        )
    ),
)

_INPUT_USAGE = Object(required(prompt_tokens=COUNT, total_tokens=COUNT))
_EMBEDDING = Object(required(object=Constant("embedding"), index=COUNT, embedding=AnyOf(Array(Number()), Text())))
EMBEDDINGS = Component(
    "Embeddings",
    Object(required(object=Constant("list"), model=Text(), data=Array(_EMBEDDING), usage=_INPUT_USAGE)),
)
_RANK = Object(required(index=COUNT, relevance_score=Number()), optional(document=Object(required(text=Text()))))
RANKING = Component(
    "Ranking",
    Object(required(object=Constant("list"), model=Text(), results=Array(_RANK), usage=_INPUT_USAGE)),
)
_ARCHITECTURE = Object(required(input_modalities=Array(Text()), output_modalities=Array(Text())))
MODEL = Component(
    "Model",
    Object(
        required(
            id=Text(),
            object=Constant("model"),
            created=UNIX_SECONDS,
            owned_by=Text(),
            context_window=Nullable(COUNT),
            state=Text(),
            architecture=Nullable(_ARCHITECTURE),
        )
    ),
)
MODEL_LIST = Component("ModelList", whole_list(MODEL))
