"""What needs an operator's attention: each as a code, a sentence, and the command that mends it, most urgent first.

Here is what a model server's status file tells; ``web/attention.py`` has the rest of ``/health``. ``supervisor status``
and ``mistral-api doctor`` have the same items, so that all say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypedDict

from mistral_api.control.rpc_workers import UNPROTECTED, exposed_addresses, worker_from_fields
from mistral_api.control.status import BUNDLED, ModelServerStatus
from mistral_api.system.command_names import installed_command, project_command

# Half a sentence; the model's name stands before it.
BASE_MODEL = (
    "has no chat template: it is a base model, which continues texts. llama.cpp writes its chats in a generic form "
    "(ChatML) that it was not trained on. Use /v1/completions, or set LLAMA_ARG_CHAT_TEMPLATE to the name or the text "
    "of a template."
)


class AttentionLevel(StrEnum):
    """How urgent an item is. The order of declaration is from urgent to less urgent.

    FAILURE: requests fail, or records are lost. WARNING: it works, though not as it should, or not for long. NOTICE:
    it works, and could be better.
    """

    FAILURE = "failure"
    WARNING = "warning"
    NOTICE = "notice"


class Attention(TypedDict):
    """One item. ``message`` is a sentence without paths, process ids or errors' texts. ``command``: what mends it, or
    shows more; ``documentation``: where that is described, a file in the project's folder and a heading in it."""

    code: str
    level: AttentionLevel
    message: str
    command: str | None
    documentation: str | None


def attention(
    code: str,
    level: AttentionLevel,
    message: str,
    command: str | None = None,
    documentation: str | None = None,
) -> Attention:
    """Return an item."""
    return {"code": code, "level": level, "message": message, "command": command, "documentation": documentation}


def most_urgent_first(items: Iterable[Attention]) -> list[Attention]:
    """Return items in the order of their levels; those of one level stay in their order."""
    return sorted(items, key=lambda item: list(AttentionLevel).index(item["level"]))


def attention_to_settings(status: ModelServerStatus) -> Iterator[Attention]:
    """Give what became of the settings of a model server otherwise than it may seem."""
    if status.memory_step:
        yield attention(
            "less_memory",
            AttentionLevel.WARNING,
            f"Memory was short, so {status.model} runs with less than was set: {status.memory_step}.",
            f"{project_command('supervisor')} --retry-gpu",
            "docs/operation.md#when-memory-is-short",
        )
    if status.idle_cards:
        yield idle_card_attention(status)
    exposed = exposed_addresses(worker_from_fields(fields).address for fields in status.rpc_workers)
    if exposed is not None:
        yield attention(
            "exposed_workers",
            AttentionLevel.WARNING,
            f"{exposed}: {UNPROTECTED}.",
            documentation="docs/scale.md#fence-the-workers",
        )
    if not status.has_chat_template:
        yield attention(
            "base_model",
            AttentionLevel.WARNING,
            f"{status.model} {BASE_MODEL}",
            documentation="docs/operation.md#models-without-a-chat-template",
        )


def idle_card_attention(status: ModelServerStatus) -> Attention:
    """Return the item of cards that could compute and do not."""
    cards = " and ".join(status.idle_cards)
    sentence = f"The processor computes, although there is {cards}"
    command = None
    if status.engine != BUNDLED:
        sentence += ": this llama-server is not built for it; set LLAMA_SERVER_BIN to one that is"
    elif status.idle_reason is not None:
        sentence += f": {status.idle_reason}"
    else:
        command = installed_command("mistral-api engine install")
    return attention(
        "idle_card",
        AttentionLevel.WARNING,
        f"{sentence}.",
        command,
        "docs/operation.md#what-computes",
    )


def attention_line(item: Attention) -> str:
    """Return an item in one line, for a log or a terminal."""
    return item["message"] if item["command"] is None else f"{item['message']} `{item['command']}`"
