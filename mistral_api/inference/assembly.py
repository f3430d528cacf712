"""A whole answer put together from a stream.

llama.cpp notices that a client has left when it writes to it, or when it has had nothing at all to
send to anybody for a second (``HTTP_POLLING_SECONDS`` in tools/server/server-context.cpp): on a busy
server an abandoned request that does not stream runs to its end. So our model server is always asked
for a stream, and what it sends becomes one object here, in the form it would have had.
"""

from __future__ import annotations

from typing import Any

from mistral_api.inference.transcript import ChoiceTranscript, Transcript


def assemble_body(transcript: Transcript, *, chat: bool) -> dict[str, Any]:
    """The ``chat.completion`` or ``text_completion`` object of a complete transcript."""
    shape = _chat_choice if chat else _text_choice
    tokens = transcript.settle()
    usage = {
        "prompt_tokens": tokens.prompt or 0,
        "completion_tokens": tokens.completion or 0,
        "total_tokens": (tokens.prompt or 0) + (tokens.completion or 0),
        "prompt_tokens_details": {"cached_tokens": tokens.cached or 0},
    }
    body = transcript.head | {
        "object": "chat.completion" if chat else "text_completion",
        "choices": [shape(index, transcript.choices[index]) for index in sorted(transcript.choices)],
        "usage": usage,
    }
    return body if transcript.timings is None else body | {"timings": transcript.timings}


def _chat_choice(index: int, choice: ChoiceTranscript) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "refusal": None} | choice.answer,
        "logprobs": None if choice.logprobs is None else {"refusal": None} | choice.logprobs,
        "finish_reason": choice.finish_reason,
    }


def _text_choice(index: int, choice: ChoiceTranscript) -> dict[str, Any]:
    return {
        "index": index,
        "text": choice.message.get("content") or "",
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }
