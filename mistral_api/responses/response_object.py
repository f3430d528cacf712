"""The Response object from its first state to its last (OpenAI's ``Response``), and its input as items."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from mistral_api.conversations.encrypted_reasoning import encode_reasoning
from mistral_api.conversations.item_renderer import assistant_items, message_to_items
from mistral_api.conversations.stored_message import assistant_message
from mistral_api.errors import ApiError
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage, TokenLogprob, TopLogprob
from mistral_api.payload_types.responses import (
    Item,
    ItemPart,
    OutputItem,
    Response,
    ResponseLogprob,
    ResponsePayload,
    ResponseTool,
    ResponseUsage,
    TextOptions,
)
from mistral_api.upstream.token_tally import TokenCounts

_INCOMPLETE_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True, slots=True)
class ResponseOutput:
    """The answer of the model.

    ``id``: of the message in the conversation; the ids of the items are made from it. ``message``: in chat form.
    ``logprobs``: of the tokens of its text, as the model server gave them. ``encrypted_reasoning``: the client carries
    the reasoning (``conversations.encrypted_reasoning``).
    """

    id: UUID
    message: GeneratedMessage
    finish_reason: str | None
    tokens: TokenCounts
    logprobs: list[TokenLogprob] | None = None
    encrypted_reasoning: bool = False


def new_response(
    request: ResponsePayload, response_id: str, created_at: int, model: str, *, conversation_id: str | None = None
) -> Response:
    """Return a response before anything is generated: ``in_progress``, or ``queued`` in the background.

    ``request``: a valid one. ``created_at``: Unix seconds. ``conversation_id``: the conversation that the client
    named.
    """
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "queued" if request.get("background") else "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "conversation": None if conversation_id is None else {"id": conversation_id},
        # Fields that repeat those of the request, and OpenAI's defaults where the request has none.
        "background": request.get("background", False),
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "max_tool_calls": request.get("max_tool_calls"),
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "previous_response_id": request.get("previous_response_id"),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "safety_identifier": request.get("safety_identifier"),
        "store": request.get("store", True),
        "temperature": request.get("temperature", 1.0),
        "tool_choice": request.get("tool_choice", "auto"),
        "top_logprobs": request.get("top_logprobs", 0),
        "top_p": request.get("top_p", 1.0),
        "truncation": request.get("truncation", "disabled"),
        "user": request.get("user"),
        "metadata": dict(request.get("metadata", {})),
        "reasoning": {"effort": None, "summary": None} | request.get("reasoning", {}),
        "service_tier": "default",
        "text": _text(request.get("text", {})),
        "tools": [_tool(tool) for tool in request.get("tools", [])],
        "usage": None,
    }


def _text(text: TextOptions) -> TextOptions:
    return {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"}


def _tool(tool: ResponseTool) -> ResponseTool:
    """Return a tool with its defaults. A function is not ``strict`` where the request does not say.

    OpenAI makes the schema of such a function one that it can enforce, and shows it as strict. Here it stays as it is.
    """
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None} | tool | {"strict": bool(tool.get("strict"))}


def in_progress(response: Response) -> Response:
    """Return a queued response whose generation has begun."""
    return response | {"status": "in_progress"}


def complete_response(response: Response, answer: ResponseOutput, *, completed_at: int | None = None) -> Response:
    """Return the response with its answer: ``completed``, or ``incomplete`` where the answer was cut off.

    ``completed_at``: Unix seconds, now where not given; only a completed response has it.
    """
    reason = _INCOMPLETE_REASONS.get(answer.finish_reason or "")
    logprobs = published_logprobs(answer.logprobs or [], response["top_logprobs"])
    output = output_items(answer.id, answer.message, logprobs, encrypted_reasoning=answer.encrypted_reasoning)
    if reason is not None:
        output[-1]["status"] = "incomplete"
    completed: Response = response | {
        "status": "completed" if reason is None else "incomplete",
        "completed_at": (completed_at or int(time.time())) if reason is None else None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": usage(answer.tokens),
    }
    return completed


def output_items(
    answer_id: UUID, message: GeneratedMessage, logprobs: list[ResponseLogprob], *, encrypted_reasoning: bool = False
) -> list[OutputItem]:
    """Return the items of an answer. ``logprobs``: of its text, in published form."""
    items = assistant_items(answer_id, assistant_message(message))
    for item in items if logprobs or encrypted_reasoning else ():
        if item["type"] == "message" and logprobs:
            item["content"] = [
                part | {"logprobs": logprobs} if part["type"] == "output_text" else part for part in item_parts(item)
            ]
        elif item["type"] == "reasoning" and encrypted_reasoning:
            item["encrypted_content"] = encode_reasoning(item["content"][0]["text"])
    return items


def item_parts(item: OutputItem) -> list[ItemPart]:
    """Return the parts of an item that the model has generated; the call of a tool has none."""
    if item["type"] != "message" and item["type"] != "reasoning":
        return []
    content = item["content"]
    return content if isinstance(content, list) else []


def published_logprobs(logprobs: list[TokenLogprob], most: int) -> list[ResponseLogprob]:
    """Return log probabilities as the Responses API has them: without token ids, bytes never null.

    ``most``: how many alternatives the client asked for; the model server may have been asked for more.
    """
    return [_logprob(each) | {"top_logprobs": [_logprob(top) for top in _top(each)[:most]]} for each in logprobs]


def _logprob(token: TopLogprob) -> ResponseLogprob:
    return {"token": token["token"], "bytes": token.get("bytes") or [], "logprob": token["logprob"]}


def _top(token: TokenLogprob) -> list[TopLogprob]:
    return token.get("top_logprobs") or []


def usage(tokens: TokenCounts) -> ResponseUsage:
    """Return the token counts. llama.cpp tells neither what it writes to its cache nor what part of an answer is
    reasoning."""
    prompt, completion = tokens.prompt or 0, tokens.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached or 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


def failed(response: Response, error: ApiError) -> Response:
    """Return the response that has failed. OpenAI has few codes for it: ours are in the ``error`` event."""
    code = "server_error"
    if error.status == 429:
        code = "rate_limit_exceeded"
    elif error.status < 500:
        code = "invalid_prompt"
    return response | {"status": "failed", "error": {"code": code, "message": error.message}}


def cancelled(response: Response) -> Response:
    """Return the response that its client has given up."""
    return response | {"status": "cancelled"}


def input_items(messages: Sequence[ChatMessage], message_ids: Sequence[UUID]) -> list[Item]:
    """Return the items of chat messages, in their order. ``message_ids``: the ids of the messages."""
    return [
        item
        for message_id, message in zip(message_ids, messages, strict=True)
        for item in message_to_items(message_id, message)
    ]
