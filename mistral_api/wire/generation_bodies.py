"""Response shapes of generating endpoints.

Errors, chat and text completions, stored ones, embeddings, rankings and models.

Anthropic's messages, events, counts and errors.

The answers of llama.cpp's own endpoints, as far as they are the same in all its versions.
"""

from __future__ import annotations

from mistral_api.wire.json_schema import (
    ANYTHING,
    BOOLEAN,
    COUNT,
    FILLED,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    UNIX_SECONDS,
    Shape,
    array,
    either,
    nullable,
    only,
    record,
    ref,
)
from mistral_api.wire.pagination import deleted, page, whole

_ERROR = {"message": FILLED, "type": FILLED, "param": nullable(TEXT), "code": nullable(TEXT)}
_USAGE = record(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    {"prompt_tokens_details": nullable(record({}, {"cached_tokens": nullable(COUNT)}))},
)
_CALL = record(
    {"id": TEXT, "type": only("function"), "function": record({"name": TEXT, "arguments": TEXT})},
)
_TOKEN_LOGPROB = record(
    {"token": TEXT, "logprob": NUMBER, "bytes": nullable(array(INTEGER)), "top_logprobs": array(OBJECT)}
)
_LOGPROBS = nullable(record({"content": nullable(array(_TOKEN_LOGPROB))}, {"refusal": nullable(array(ANYTHING))}))
_MESSAGE = record(
    {"role": only("assistant"), "content": nullable(TEXT), "refusal": nullable(TEXT)},
    {"tool_calls": array(_CALL), "reasoning_content": nullable(TEXT)},
)
_HEAD: dict[str, Shape] = {"id": TEXT, "created": UNIX_SECONDS, "model": TEXT}
# What llama.cpp and this server add.
_MORE: dict[str, Shape] = {"timings": OBJECT, "session_id": TEXT, "metadata": nullable(OBJECT)}


def _completion(kind: str, choice: Shape) -> Shape:
    return record({**_HEAD, "object": only(kind), "choices": array(choice), "usage": ref("Usage")}, _MORE)


def _chunk(kind: str, choice: Shape) -> Shape:
    return record({**_HEAD, "object": only(kind), "choices": array(choice)}, {"usage": nullable(ref("Usage"))})


_DELTA = record(
    {},
    {
        "role": only("assistant"),
        "content": nullable(TEXT),
        "reasoning_content": nullable(TEXT),
        "tool_calls": array(record({"index": COUNT}, {"id": TEXT, "type": only("function"), "function": OBJECT})),
    },
)
_FINISH = nullable(TEXT)

GENERATION_COMPONENTS: dict[str, Shape] = {
    "Error": record({"error": record(_ERROR) | {"additionalProperties": False}}) | {"additionalProperties": False},
    "Usage": _USAGE,
    "ChatCompletion": _completion(
        "chat.completion",
        record({"index": COUNT, "message": _MESSAGE, "finish_reason": _FINISH, "logprobs": _LOGPROBS}),
    ),
    "ChatCompletionChunk": _chunk(
        "chat.completion.chunk",
        record({"index": COUNT, "delta": _DELTA, "finish_reason": _FINISH}, {"logprobs": _LOGPROBS}),
    ),
    "Completion": _completion(
        "text_completion",
        record({"index": COUNT, "text": TEXT, "finish_reason": _FINISH, "logprobs": nullable(OBJECT)}),
    ),
    "CompletionChunk": _chunk("text_completion", record({"index": COUNT, "text": TEXT, "finish_reason": _FINISH})),
    "ChatCompletionPage": page(ref("ChatCompletion")),
    "ChatCompletionDeleted": deleted("chat.completion.deleted"),
    "ChatCompletionMessagePage": page(
        record(
            {
                "id": TEXT,
                "role": TEXT,
                "content": nullable(TEXT),
                "content_parts": nullable(array(OBJECT)),
                "refusal": nullable(TEXT),
                "name": nullable(TEXT),
            }
        )
    ),
    "Embeddings": record(
        {
            "object": only("list"),
            "model": TEXT,
            "data": array(
                record(
                    {"object": only("embedding"), "index": COUNT, "embedding": either(array(NUMBER), TEXT)},
                )
            ),
            "usage": record({"prompt_tokens": COUNT, "total_tokens": COUNT}),
        }
    ),
    "Ranking": record(
        {
            "object": only("list"),
            "model": TEXT,
            "results": array(
                record({"index": COUNT, "relevance_score": NUMBER}, {"document": record({"text": TEXT})}),
            ),
            "usage": record({"prompt_tokens": COUNT, "total_tokens": COUNT}),
        }
    ),
    "Model": record(
        {
            "id": TEXT,
            "object": only("model"),
            "created": UNIX_SECONDS,
            "owned_by": TEXT,
            "context_window": nullable(COUNT),
            "state": TEXT,
        }
    ),
    "ModelList": whole(ref("Model")),
}


_BLOCK = either(
    record({"type": only("text"), "text": TEXT}),
    record({"type": only("thinking"), "thinking": TEXT, "signature": TEXT}),
    record({"type": only("tool_use"), "id": TEXT, "name": TEXT, "input": OBJECT}),
)

ANTHROPIC_COMPONENTS: dict[str, Shape] = {
    "AnthropicMessage": record(
        {
            "id": TEXT,
            "type": only("message"),
            "role": only("assistant"),
            "model": TEXT,
            "content": array(_BLOCK),
            "stop_reason": TEXT,
            "stop_sequence": nullable(TEXT),
            "usage": record(
                {
                    "input_tokens": COUNT,
                    "cache_creation_input_tokens": COUNT,
                    "cache_read_input_tokens": COUNT,
                    "output_tokens": COUNT,
                }
            ),
            "session_id": TEXT,
        }
    ),
    "AnthropicEvent": record({"type": TEXT}),
    "AnthropicTokenCount": record({"input_tokens": COUNT}),
    "AnthropicError": record(
        {
            "type": only("error"),
            "error": record({"type": FILLED, "message": FILLED, "param": nullable(TEXT), "code": nullable(TEXT)}),
            "request_id": TEXT,
        }
    ),
}


LLAMA_CPP_COMPONENTS: dict[str, Shape] = {
    # With response_fields an answer has the fields asked for alone.
    "NativeCompletion": record(
        {}, {"index": INTEGER, "content": TEXT, "tokens": array(INTEGER), "stop": BOOLEAN, "model": TEXT}
    ),
    "NativeCompletions": either(ref("NativeCompletion"), array(ref("NativeCompletion"))),
    "Tokens": record({"tokens": array(either(INTEGER, record({"id": INTEGER, "piece": ANYTHING})))}),
    "Detokenized": record({"content": TEXT}),
    "Prompt": record({"prompt": TEXT}),
    "Properties": OBJECT,
    "Slots": array(OBJECT),
    "SlotAction": record({"id_slot": INTEGER}),
    "Adapters": array(OBJECT),
    "Done": OBJECT,
}
