"""Anthropic's content blocks as OpenAI's messages and parts."""

from __future__ import annotations

import re
from typing import Any

import orjson

# Claude Code puts a stamp that changes with each request before the system text: no prompt would be found cached.
_STAMP = re.compile(r"\A(x-anthropic-billing-header:[^\n]*?\bcch=)[0-9a-f]{5};")


def system_text(system: str | list[dict[str, Any]]) -> str:
    """The system prompt in one string."""
    texts = [system] if isinstance(system, str) else [block["text"] for block in system]
    return "\n".join(_STAMP.sub(r"\g<1>00000;", text) for text in texts)


def chat_messages(message: dict[str, Any]) -> list[dict[str, Any]]:
    """One message in OpenAI's form; the results of tools become messages of their own, before the rest."""
    role, content = message["role"], message["content"]
    if role == "system":
        return [{"role": "system", "content": system_text(content)}]
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    return [_assistant(content)] if role == "assistant" else _user(content)


def _assistant(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    message["content"] = "".join(texts) if texts or not calls else None
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: dict[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _user(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    messages = [_tool_message(block) for block in blocks if block["type"] == "tool_result"]
    said = [block for block in blocks if block["type"] != "tool_result"]
    if said or not messages:
        messages.append({"role": "user", "content": _content(said)})
    return messages


def _tool_message(block: dict[str, Any]) -> dict[str, Any]:
    content = block.get("content") or ""
    said = content if isinstance(content, str) else _content(content)
    if not said and block.get("is_error"):
        said = "error"
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": said}


def _content(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One string where there is nothing but one text, else parts."""
    parts = [part for block in blocks for part in _parts(block)]
    if all(part["type"] == "text" for part in parts) and len(parts) <= 1:
        return parts[0]["text"] if parts else ""
    return parts


def _parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    kind = block["type"]
    if kind == "text":
        return [_text(block["text"])]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _image_url(block["source"])}}]
    if kind == "search_result":
        return [_text(f"{block['title']}\n{block['source']}"), *(_text(each["text"]) for each in block["content"])]
    return _document(block)


def _document(block: dict[str, Any]) -> list[dict[str, Any]]:
    source = block["source"]
    heads = [_text(block[name]) for name in ("title", "context") if block.get(name)]
    if source["type"] == "text":
        return [*heads, _text(source["data"])]
    content = source["content"]
    inner = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [*heads, *(part for each in inner for part in _parts(each))]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_url(source: dict[str, Any]) -> str:
    if source["type"] == "url":
        return str(source["url"])
    return f"data:{source['media_type']};base64,{source['data']}"
