"""From input items to the chat messages that are stored, and that the model server reads."""

from __future__ import annotations

from collections.abc import Iterable

from mistral_api.items.parts import chat_content
from mistral_api.schemas.items import item_type
from mistral_api.schemas.payload_types import ChatMessage, Item


def items_to_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """Chat messages of items that :func:`mistral_api.schemas.items.check_items` has let through.

    Reasoning, the assistant's message and the function calls that follow one another are one message, as chat
    has it. Reasoning without a readable text leaves nothing behind. An ``item_reference`` must have been replaced
    by the item it names (:mod:`mistral_api.conversations.references`); raises KeyError for one that was not.
    """
    joiner = _Joiner()
    for item in items:
        _ADD[item_type(item)](joiner, item)
    return joiner.messages


class _Joiner:
    """The messages so far; ``turn`` is the assistant's one that the next item may still belong to."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []
        self.turn: ChatMessage | None = None

    def message(self, item: Item) -> None:
        """What somebody said."""
        if item["role"] == "assistant":
            self._answer(item)
            return
        self.turn = None
        self.messages.append({"role": item["role"], "content": chat_content(item["content"])})

    def _answer(self, item: Item) -> None:
        content, refusal = chat_content(item["content"]), _refusal(item["content"])
        said = {"content": content or None, "refusal": refusal} if refusal else {"content": content}
        self._reasoning_turn().update(said)

    def reasoning(self, item: Item) -> None:
        """What the model thought before it answered."""
        text = _reasoning_text(item)
        if not text:
            return
        turn = self._reasoning_turn()
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{before}\n{text}" if before else text

    def call(self, item: Item) -> None:
        """A function that the model called."""
        turn = self.turn or self._begin()
        function = {"name": item["name"], "arguments": item["arguments"]}
        turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})

    def output(self, item: Item) -> None:
        """What a function answered."""
        self.turn = None
        message = {"role": "tool", "tool_call_id": item["call_id"], "content": chat_content(item["output"])}
        if item.get("name"):
            message["name"] = item["name"]
        self.messages.append(message)

    def _reasoning_turn(self) -> ChatMessage:
        """The turn that has nothing yet but reasoning, else a new one."""
        turn = self.turn
        if turn is None or turn["content"] is not None or "tool_calls" in turn or "refusal" in turn:
            turn = self._begin()
        return turn

    def _begin(self) -> ChatMessage:
        self.turn = {"role": "assistant", "content": None}
        self.messages.append(self.turn)
        return self.turn


_ADD = {
    "message": _Joiner.message,
    "reasoning": _Joiner.reasoning,
    "function_call": _Joiner.call,
    "function_call_output": _Joiner.output,
}


def _refusal(content: str | list[Item]) -> str | None:
    """The words with which the model refused, if it did."""
    if isinstance(content, str):
        return None
    return "\n".join(part["refusal"] for part in content if part["type"] == "refusal") or None


def _reasoning_text(item: Item) -> str:
    """The reasoning itself, else its summary."""
    parts = item.get("content") or item.get("summary") or []
    return "\n".join(part["text"] for part in parts if part["text"])
