"""One question and its answer, for scripts and pipes: the answer alone on the standard output, or one JSON object."""

from __future__ import annotations

import json
import locale
import sys

import click

from mistral_api.payload_types import JsonObject
from mistral_api.terminal.chat import Chat
from mistral_api.terminal.conversation import Answer


class TooLong(ValueError):
    """The standard input has more than a request may have."""


def read_piped(most_bytes: int) -> str:
    """Return what the standard input has, up to its end: UTF-8, else the encoding of this system. Raises TooLong."""
    content = b"" if sys.stdin is None else sys.stdin.buffer.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise TooLong(f"The standard input has more than {most_bytes} bytes, the most that MAX_REQUEST_BYTES allows.")
    try:
        return str(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return str(content.decode(locale.getpreferredencoding(do_setlocale=False), errors="replace"))


class Silence:
    """Shows nothing of an answer while it arrives."""

    def waiting(self, seconds: float) -> None:
        """Nothing has been generated for so long."""

    def reasoning(self, text: str) -> None:
        """A piece of what the model thinks has arrived."""

    def content(self, text: str) -> None:
        """A piece of the answer has arrived."""


def answer_once(chat: Chat, question: str, *, as_json: bool) -> Answer:
    """Ask, and print the answer. Raises ChatError."""
    if not as_json:
        return chat.ask(question)
    answer = chat.conversation.ask(question, Silence())
    click.echo(json.dumps(_object(chat, answer)))
    return answer


def _object(chat: Chat, answer: Answer) -> JsonObject:
    return {
        "session_id": chat.conversation.session_id,
        "model": answer.model,
        "content": answer.content,
        "reasoning": answer.reasoning or None,
        "finish_reason": "interrupted" if answer.stopped else answer.finish_reason,
        "usage": answer.usage,
        "seconds": round(answer.seconds, 3),
        "first_token_seconds": None if answer.first_seconds is None else round(answer.first_seconds, 3),
        "tokens_per_second": None if answer.tokens_per_second is None else round(answer.tokens_per_second, 2),
    }
