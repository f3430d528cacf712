"""Open WebUI's chat export (Settings, Data Controls, Export Chats; or the download of one chat).

Sources: open-webui/open-webui ``backend/open_webui/models/chats.py`` (``ChatResponse``, what is exported;
``get_current_message_id``), ``src/lib/components/chat/Settings/DataControls.svelte`` (what its own import takes, older
exports included), ``backend/open_webui/utils/middleware.py`` (``serialize_content_blocks``: the ``<details>`` in
answers) and ``src/lib/utils/index.ts``; danny-avila/LibreChat ``api/server/utils/import/importers.js``
(``importOpenWebUiConvo``: the newer ``output`` of a message, items as of OpenAI's Responses API).

The file is an array of chats, ``{"id", "title", "chat": {…}, "created_at", "updated_at"}``; older ones have the inner
object alone. ``history.messages`` of that holds the messages by id, each with ``parentId``, and ``history.currentId``
(``current_message_id`` beside the chat in the newest) is the end of the branch that is shown. The oldest have
``messages``, a list, alone.

- The chat's system text (``params.system``, ``system`` before) is its first message.
- Reasoning and tool calls are in ``output``, else in the text as ``<details type="reasoning">`` and ``tool_calls``.
- An answer that failed has ``error``; its text is kept, with the status ``failed``.
- Images are data URLs in ``files``. Those that lie on that server are named in a text.
"""

from __future__ import annotations

import html
import re
from typing import Any

import orjson

from mistral_api.conversations.importing.answer_builder import (
    AnswerBuilder,
    image_part,
    join_parts,
    missing_part,
    text_part,
)
from mistral_api.conversations.importing.imported import MalformedConversation
from mistral_api.conversations.importing.source_tree import SourceConversation, SourceNode, short_hash
from mistral_api.conversations.importing.source_values import (
    count_of,
    json_text,
    object_of,
    objects_of,
    optional_text,
    text_of,
    time_of,
)
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ContentPart

FORMAT = "open-webui"
_SYSTEM_KEY = "system"
_ATTRIBUTES = r"""(?:\s+[\w-]+(?:=(?:"[^"]*"|'[^']*'))?)*"""
_DETAILS_END = "</details>"
_DETAILS = re.compile(rf"<details({_ATTRIBUTES})\s*>\s*(?:<summary>[^<]*</summary>)?(.*?){_DETAILS_END}", re.DOTALL)
_ATTRIBUTE = re.compile(r"""([\w-]+)=(?:"([^"]*)"|'([^']*)')""")


def read_conversation(value: JsonObject) -> SourceConversation:
    """Return one chat of the array. Raises MalformedConversation."""
    chat = value["chat"] if isinstance(value.get("chat"), dict) else value
    messages = _messages(chat)
    created_at = time_of(value.get("created_at")) or time_of(chat.get("timestamp"))
    nodes = [_node(key, object_of(message), chat) for key, message in messages.items()]
    return SourceConversation(
        format=FORMAT,
        id=_source_id(value, chat, messages),
        title=optional_text(value.get("title")) or optional_text(chat.get("title")),
        created_at=created_at,
        updated_at=time_of(value.get("updated_at")),
        nodes=_below_system_text(nodes, chat),
        current=_current(value, chat, messages),
    )


def _messages(chat: JsonObject) -> JsonObject:
    """Return the messages by id. Raises MalformedConversation."""
    listed = object_of(chat.get("history")).get("messages")
    if isinstance(listed, dict):
        return listed
    if not isinstance(chat.get("messages"), list):
        raise MalformedConversation("has neither 'history.messages' nor 'messages'")
    messages: JsonObject = {}
    previous: str | None = None
    for number, message in enumerate(objects_of(chat["messages"])):
        key = optional_text(message.get("id")) or str(number)
        # Without parents the order of the list is that of the chat.
        messages[key] = message if "parentId" in message else message | {"parentId": previous}
        previous = key
    return messages


def _current(value: JsonObject, chat: JsonObject, messages: JsonObject) -> str | None:
    """Return the id of the message at the end of the branch that is shown."""
    history = object_of(chat.get("history"))
    named = (history.get("currentId"), chat.get("currentId"), value.get("current_message_id"))
    return next((key for key in named if isinstance(key, str) and key in messages), next(reversed(messages), None))


def _source_id(value: JsonObject, chat: JsonObject, messages: JsonObject) -> str:
    """Return the id of a chat. The oldest exports have none: the ids of its first message and of its time stand for it.

    Raises MalformedConversation for a chat without messages.
    """
    source_id = optional_text(value.get("id")) or optional_text(chat.get("id"))
    if source_id is not None:
        return source_id
    if not messages:
        raise MalformedConversation("has no message")
    return short_hash(str(chat.get("timestamp")), next(iter(messages)))


def _below_system_text(nodes: list[SourceNode], chat: JsonObject) -> list[SourceNode]:
    """Return the nodes with the chat's system text above all others."""
    text = text_of(object_of(chat.get("params")).get("system")) or text_of(chat.get("system"))
    keys = {node.key for node in nodes}
    if not text.strip() or _SYSTEM_KEY in keys:
        return nodes
    for node in nodes:
        if node.parent not in keys:
            node.parent = _SYSTEM_KEY
    return [SourceNode(key=_SYSTEM_KEY, parent=None, messages=[{"role": "system", "content": text}]), *nodes]


def _node(key: str, message: JsonObject, chat: JsonObject) -> SourceNode:
    models = chat.get("models")
    first_model = optional_text(models[0]) if isinstance(models, list) and models else None
    usage = object_of(message.get("usage"))
    node = SourceNode(
        key=key,
        parent=optional_text(message.get("parentId")),
        created_at=time_of(message.get("timestamp")),
        model=optional_text(message.get("model")) or first_model,
        prompt_tokens=count_of(usage.get("prompt_tokens")),
        completion_tokens=count_of(usage.get("completion_tokens")),
    )
    role = message.get("role")
    node.messages = _answer(key, message) if role == "assistant" else _other_messages(text_of(role), message)
    if message.get("error"):
        node.messages = node.messages or [{"role": "assistant", "content": _error_text(message["error"])}]
        node.status = "failed"
    elif message.get("done") is False:
        node.status = "interrupted"
    return node


def _other_messages(role: str, message: JsonObject) -> list[ChatMessage]:
    """Return the message of a user, or a system message."""
    parts = [text_part(text)] if (text := _text(message.get("content"))).strip() else []
    parts += [_file_part(file) for file in objects_of(message.get("files"))]
    content = join_parts(parts)
    return [] if content is None else [{"role": "system" if role == "system" else "user", "content": content}]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(text_of(part.get("text")) for part in objects_of(content) if part.get("text"))


def _file_part(file: JsonObject) -> ContentPart:
    url, name = text_of(file.get("url")), text_of(file.get("name"))
    if file.get("type") != "image":
        return text_part(f"[file {name or text_of(file.get('id'))}]")
    if url.startswith(("data:", "http://", "https://")):
        return image_part(url)
    return missing_part("image", name or url)


def _error_text(error: object) -> str:
    detail = object_of(error).get("content", error)
    return detail if isinstance(detail, str) else json_text(detail)


def _answer(key: str, message: JsonObject) -> list[ChatMessage]:
    answer = AnswerBuilder(key)
    answer.reason(text_of(message.get("reasoning_content")))
    output = objects_of(message.get("output"))
    if output:
        _add_output(answer, output)
    else:
        _add_text(answer, _text(message.get("content")))
    for file in objects_of(message.get("files")):
        answer.show(_file_part(file))
    return answer.messages()


def _add_output(answer: AnswerBuilder, output: list[JsonObject]) -> None:
    """Add the items of a newer answer."""
    for item in output:
        kind, call_id = item.get("type"), text_of(item.get("call_id")) or text_of(item.get("id"))
        if kind == "reasoning":
            answer.reason(_text(item.get("summary") or item.get("content")))
        elif kind == "message":
            answer.say(_text(item.get("content")))
        elif kind == "function_call":
            answer.call(text_of(item.get("name")), json_text(item.get("arguments", "{}")), call_id)
        elif kind == "function_call_output":
            result = item.get("output")
            answer.result(call_id, result if isinstance(result, str) else _text(result))
        elif kind == "open_webui:code_interpreter":
            _add_code(answer, text_of(item.get("code")), item.get("output"))


def _add_code(answer: AnswerBuilder, code: str, output: object) -> None:
    call_id = answer.call("code_interpreter", orjson.dumps({"code": code}).decode(), None)
    if output is not None:
        answer.result(call_id, json_text(output))


def _add_text(answer: AnswerBuilder, text: str) -> None:
    """Add the text of an answer, with the reasoning and the tool calls that are written into it."""
    end = 0
    # Where nothing is closed any more, each <details> would be looked through to the end of the text.
    for found in _DETAILS.finditer(text, 0, text.rfind(_DETAILS_END) + len(_DETAILS_END)):
        attributes = {name: html.unescape(one or two) for name, one, two in _ATTRIBUTE.findall(found[1])}
        if attributes.get("type") not in ("reasoning", "tool_calls"):
            continue
        answer.say(text[end : found.start()].strip())
        end = found.end()
        if attributes["type"] == "reasoning":
            answer.reason(_without_quotes(html.unescape(found[2])))
        else:
            _add_call(answer, attributes)
    rest = text[end:]
    answer.say(rest.strip() if end else rest)


def _without_quotes(text: str) -> str:
    """Return the lines of a Markdown quotation without their marks."""
    return "\n".join(line.removeprefix(">").removeprefix(" ") for line in text.strip().splitlines())


def _add_call(answer: AnswerBuilder, attributes: dict[str, str]) -> None:
    name, arguments = attributes.get("name", ""), _decoded(attributes.get("arguments", ""))
    call_id = answer.call(name, arguments, attributes.get("id"))
    if "result" in attributes:
        answer.result(call_id, _decoded(attributes["result"]))


def _decoded(attribute: str) -> str:
    """Return a text that stands in an attribute as a JSON string; any other as it is."""
    try:
        value = orjson.loads(attribute)
    except orjson.JSONDecodeError:
        return attribute
    return value if isinstance(value, str) else attribute
