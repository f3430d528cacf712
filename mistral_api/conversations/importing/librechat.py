"""LibreChat's export of one conversation as JSON.

Sources: danny-avila/LibreChat ``client/src/hooks/Conversations/useExportConversation.ts`` (``exportJSON``) and
``client/src/hooks/Messages/useBuildMessageTree.ts`` (list or tree, branches or not),
``api/server/utils/import/importers.js`` (``importLibreChatConvo``), ``packages/data-provider/src/types/runs.ts``
(``ContentTypes``, the parts of an answer) and ``api/app/clients/OpenAIClient.js`` (``getStreamText``: ``:::thinking``
in the text of older answers).

``messages`` is a list in which ``parentMessageId`` makes the tree, or ``messagesTree`` (``recursive``) holds each
message with its ``children``. Nothing says which branch was shown: it is the one with the newest message.

- ``options.promptPrefix`` (of agents ``instructions``, of other endpoints ``system``) is the system text.
- The parts of an answer are ``text``, ``think``, ``tool_call``, ``image_file`` and others; older answers are ``text``.
- Files and images lie on that server, and are named in a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mistral_api.conversations.importing.answer_builder import (
    AnswerBuilder,
    image_part,
    join_parts,
    missing_part,
    text_part,
)
from mistral_api.conversations.importing.imported import MalformedConversation
from mistral_api.conversations.importing.source_tree import SourceConversation, SourceNode
from mistral_api.conversations.importing.source_values import (
    json_text,
    object_of,
    objects_of,
    optional_text,
    text_of,
    time_of,
)
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ContentPart

FORMAT = "librechat"
# ``Constants.NO_PARENT`` of packages/data-provider/src/config.ts.
_NO_PARENT = "00000000-0000-0000-0000-000000000000"
_SYSTEM_KEY = "system"
_THINKING_END = "\n:::\n"
_THINKING = re.compile(f":::thinking\n(.*?){_THINKING_END}", re.DOTALL)


def read_conversation(value: JsonObject) -> SourceConversation:
    """Return the conversation of a file. Raises MalformedConversation."""
    source_id = optional_text(value.get("conversationId"))
    if source_id is None:
        raise MalformedConversation("has no 'conversationId'")
    options = object_of(value.get("options"))
    model = optional_text(options.get("model"))
    messages = {text_of(message.get("messageId")): message for message in _messages(value)}
    return SourceConversation(
        format=FORMAT,
        id=source_id,
        title=optional_text(value.get("title")),
        created_at=None,
        updated_at=None,
        nodes=_below_system_text([_node(key, message, model) for key, message in messages.items()], options),
        current=None,
    )


def _messages(value: JsonObject) -> Iterator[JsonObject]:
    """Yield the messages, each with ``parentMessageId``. Raises MalformedConversation."""
    listed = value["messages"] if "messages" in value else value.get("messagesTree")
    if not isinstance(listed, list):
        raise MalformedConversation("has neither a list 'messages' nor a list 'messagesTree'")
    previous: str | None = None
    pending: list[JsonObject] = objects_of(listed)[::-1]
    while pending:
        message = pending.pop()
        key = optional_text(message.get("messageId"))
        if key is None:
            raise MalformedConversation("has a message without 'messageId'")
        # Without parents the order of the list is that of the conversation.
        yield message if "parentMessageId" in message else message | {"parentMessageId": previous}
        previous = key
        children = objects_of(message.get("children"))[::-1]
        pending += [child | {"parentMessageId": key} for child in children]


def _below_system_text(nodes: list[SourceNode], options: JsonObject) -> list[SourceNode]:
    """Return the nodes with the conversation's system text above all others."""
    names = ("promptPrefix", "instructions", "system")
    text = next((options[name] for name in names if optional_text(options.get(name))), "")
    if not text.strip():
        return nodes
    keys = {node.key for node in nodes}
    for node in nodes:
        if node.parent not in keys:
            node.parent = _SYSTEM_KEY
    return [SourceNode(key=_SYSTEM_KEY, parent=None, messages=[{"role": "system", "content": text}]), *nodes]


def _node(key: str, message: JsonObject, model: str | None) -> SourceNode:
    parent = optional_text(message.get("parentMessageId"))
    by_user = message.get("isCreatedByUser") is True
    node = SourceNode(
        key=key,
        parent=None if parent == _NO_PARENT else parent,
        messages=_user_messages(message) if by_user else _answer(key, message),
        created_at=time_of(message.get("createdAt")),
        model=optional_text(message.get("model")) or model,
    )
    if message.get("error") is True:
        node.status = "failed"
    elif message.get("unfinished") is True or message.get("finish_reason") == "incomplete":
        node.status = "interrupted"
    return node


def _user_messages(message: JsonObject) -> list[ChatMessage]:
    texts = [_text(part) for part in objects_of(message.get("content")) if part.get("type") == "text"]
    text = text_of(message.get("text")) or "\n\n".join(texts)
    parts = [text_part(text)] if text.strip() else []
    content = join_parts(parts + [_file_part(file) for file in objects_of(message.get("files"))])
    return [] if content is None else [{"role": "user", "content": content}]


def _file_part(file: JsonObject) -> ContentPart:
    name = text_of(file.get("filename")) or text_of(file.get("file_id"))
    return missing_part("image", name) if _is_image(file) else text_part(f"[file {name}]")


def _is_image(file: JsonObject) -> bool:
    return text_of(file.get("type")).startswith("image/") or "width" in file


def _text(part: JsonObject, name: str = "text") -> str:
    """Return the text of a part: a string, or an object with ``value``."""
    value = part.get(name)
    return text_of(object_of(value).get("value")) if isinstance(value, dict) else text_of(value)


def _answer(key: str, message: JsonObject) -> list[ChatMessage]:
    answer = AnswerBuilder(key)
    parts = objects_of(message.get("content"))
    for part in parts:
        _add_part(answer, part)
    if not parts:
        _add_text(answer, text_of(message.get("text")))
    for file in [*objects_of(message.get("files")), *objects_of(message.get("attachments"))]:
        if text_of(file.get("filename")):
            answer.show(_file_part(file))
    return answer.messages()


def _add_text(answer: AnswerBuilder, text: str) -> None:
    # Where nothing is closed any more, each beginning would be looked through to the end of the text.
    end = text.rfind(_THINKING_END) + len(_THINKING_END)
    for thought in _THINKING.findall(text, 0, end):
        answer.reason(thought)
    answer.say(_THINKING.sub("", text[:end]) + text[end:])


def _add_part(answer: AnswerBuilder, part: JsonObject) -> None:
    kind = part.get("type")
    if kind == "think":
        answer.reason(_text(part, "think"))
    elif kind == "tool_call":
        _add_call(answer, object_of(part.get("tool_call")))
    elif kind == "image_file":
        answer.show(missing_part("image", text_of(object_of(part.get("image_file")).get("filename"))))
    elif kind == "image_url":
        url = text_of(object_of(part.get("image_url")).get("url"))
        answer.show(image_part(url) if url.startswith(("data:", "http")) else missing_part("image", url))
    else:
        answer.say(_text(part) or _text(part, "error"))


def _add_call(answer: AnswerBuilder, call: JsonObject) -> None:
    """Add the call of a tool: of an agent, or of the older assistants (``function``, ``code_interpreter``)."""
    inner = object_of(call.get("function")) or object_of(call.get("code_interpreter")) or call
    name = text_of(inner.get("name")) or text_of(call.get("type"))
    call_id = answer.call(name, json_text(_first(inner, ("args", "arguments", "input"))), optional_text(call.get("id")))
    result = _first(inner, ("output", "outputs"))
    if result:
        answer.result(call_id, json_text(result))


def _first(payload: JsonObject, names: tuple[str, ...]) -> Any:
    return next((payload[name] for name in names if payload.get(name) is not None), "")
