"""How many bytes of text a request asks the model to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from mistral_api.conversations.tool_items import call_text
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, ExtraFile
from mistral_api.upstream.text_limit import FREE_BYTES, TextSize, text_bytes

# Fields of a chat besides its messages that a template may write into the prompt.
_IN_PROMPT = ("tools", "functions", "chat_template_kwargs", "response_format")


def chat_size(
    messages: Sequence[ChatMessage], options: Mapping[str, Any] | None = None, param: str | None = None
) -> TextSize:
    """Return the text of messages, and of those ``options`` that may go into the prompt.

    Images, sounds and files count as nothing. ``param`` is the field that the messages come from; without it it is
    ``messages``, or the message that alone is most of them. Of a short text only the size of all is told.
    """
    total = sum(map(_message_characters, messages))
    others = [options[name] for name in _IN_PROMPT if options.get(name)] if options else []
    if others:
        total += len(orjson.dumps(others))
    if total <= FREE_BYTES // 4:  # a character has four bytes at most
        return TextSize(0, total, param or "messages")
    users = [(user_bytes([message]), index) for index, message in enumerate(messages) if message["role"] == "user"]
    kept = sum(size for size, _ in users)
    longest, index = max(users, default=(0, 0))
    if param is None:
        param = f"messages[{index}].content" if longest > total // 2 else "messages"
    return TextSize(kept, max(total, kept), param)


def _message_characters(message: ChatMessage) -> int:
    content = message.get("content")
    size = len(content) if isinstance(content, str) else sum(map(len, _texts(content)))
    size += len(message.get("reasoning_content") or "")
    for call in message.get("tool_calls") or ():
        size += len(call_text(call))
    return size


def user_bytes(messages: Iterable[ChatMessage]) -> int:
    """Return the bytes of the messages of users, without the white space around their texts: no template leaves out
    more of them."""
    texts = [text for each in messages if each["role"] == "user" for text in _texts(each.get("content"))]
    return sum(text_bytes(text.strip()) for text in texts)


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts of a message's content."""
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        text = part.get("text") or part.get("refusal") if isinstance(part, dict) else None
        if isinstance(text, str):
            yield text


def prompt_sizes(payload: ChatPayload) -> Iterator[TextSize]:
    """Yield the text of each prompt of a completion, or of the parts of a request to fill in a gap.

    llama.cpp takes of the latter what fits, so it may be longer.
    """
    if "input_prefix" in payload:
        total = sum(map(_mixed_bytes, _infill_texts(payload)))
        yield TextSize(0, total, "input_prefix")
        return
    prompt: Any = payload["prompt"]
    prompts = prompts_of(prompt)
    for index, each in enumerate(prompts):
        yield _prompt_size(each, f"prompt[{index}]" if prompts is prompt else "prompt")


def prompts_of(prompt: Any) -> list[Any]:
    """Return the prompts of a completion: a list of tokens, or of tokens and strings, is one prompt."""
    return [prompt] if not isinstance(prompt, list) or any(isinstance(each, int) for each in prompt) else prompt


def _prompt_size(prompt: Any, param: str) -> TextSize:
    size = _mixed_bytes(prompt["prompt_string"] if isinstance(prompt, dict) else prompt)
    return TextSize(size, size, param)


def _infill_texts(payload: ChatPayload) -> Iterable[Any]:
    extras: list[ExtraFile] = payload.get("input_extra", [])
    return [
        payload["input_prefix"],
        payload["input_suffix"],
        payload.get("prompt") or "",
        *(extra["text"] for extra in extras),
    ]


def _mixed_bytes(mixed: str | list[str | int]) -> int:
    """Return the bytes of a string, or of the strings among tokens."""
    if isinstance(mixed, str):
        return text_bytes(mixed)
    return sum(text_bytes(each) for each in mixed if isinstance(each, str))
