"""The conversation that a terminal has with a model: its questions, what was answered, and what is taken back.

The server keeps it: a question is sent alone, and the server puts before it what was said (``use_history``). Where the
server cannot, because it keeps no text or its database is away, all that was said here is sent with each question.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.completions import Chunk, Delta, Timings, Usage
from mistral_api.system.identifiers import new_id
from mistral_api.terminal.answer_stream import AnswerStream
from mistral_api.terminal.server import Refused, Server, conversation_path, objects

_PAGE = 500
_ITEM_PAGE = {"limit": "20", "order": "desc"}
# How long a stopped answer takes to be recorded at most. Mostly it is there at once; a key allows so many requests.
_SETTLE_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.03, 0.3


@dataclass(slots=True)
class GenerationOptions:
    """What every question is sent with; None where the server decides."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def fields(self) -> JsonObject:
        """Return the fields of a chat request."""
        fields = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in fields.items() if value is not None}


class AnswerListener(Protocol):
    """Who shows an answer while it arrives."""

    def waiting(self, seconds: float) -> None:
        """Nothing has been generated for so long."""

    def reasoning(self, text: str) -> None:
        """A piece of what the model thinks has arrived."""

    def content(self, text: str) -> None:
        """A piece of the answer has arrived."""


@dataclass(slots=True)
class Answer:
    """An answer, whole or as far as it came. ``stopped``: the user stopped it. Times are in seconds."""

    model: str | None = None
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    stopped: bool = False
    began: float = field(default_factory=time.monotonic)
    first_seconds: float | None = None
    seconds: float = 0.0

    def add(self, chunk: Chunk) -> Delta:
        """Add a chunk, and return what it says of the message."""
        self.model = chunk.get("model") or self.model
        self.usage, self.timings = chunk.get("usage") or self.usage, chunk.get("timings") or self.timings
        delta: Delta = {}
        for choice in chunk.get("choices") or []:
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta") or {}
        self.content += delta.get("content") or ""
        self.reasoning += delta.get("reasoning_content") or ""
        self.seconds = time.monotonic() - self.began
        if self.first_seconds is None and (self.content or self.reasoning):
            self.first_seconds = self.seconds
        return delta

    @property
    def tokens_per_second(self) -> float | None:
        """The model server's own figure, else what the times here say; None where nobody knows."""
        if self.timings and self.timings.get("predicted_per_second"):
            return self.timings["predicted_per_second"]
        tokens = (self.usage or {}).get("completion_tokens")
        duration = self.seconds - (self.first_seconds or 0.0)
        return (tokens - 1) / duration if tokens and tokens > 1 and duration > 0 else None


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str

    def messages(self) -> list[JsonObject]:
        """Return both in OpenAI's form; an answer that was stopped before its first word is none."""
        question = {"role": "user", "content": self.question}
        return [question, {"role": "assistant", "content": self.answer}] if self.answer else [question]


class Conversation:
    """A conversation on a server. One thread uses it."""

    def __init__(self, server: Server, options: GenerationOptions, session_id: str | None = None) -> None:
        """``session_id`` is that of a conversation which may be there already; without one another is begun."""
        self._server = server
        self.options = options
        self.session_id = session_id or _new_session_id()
        # What was said here; all of it where the conversation began here.
        self.turns: list[Turn] = []
        self._began_here = session_id is None
        self._sends_whole = False
        self._truncates = True
        self._stopped_request: str | None = None

    def newest(self, limit: int) -> list[JsonObject]:
        """Return the newest messages, oldest first; none where there is no such conversation yet. Raises ChatError."""
        try:
            body = self._server.request("GET", conversation_path(self.session_id), {"limit": str(limit)})
        except Refused as error:
            if error.status != 404:
                raise
            self._began_here = self._began_here or not self.turns
            return []
        return objects(body, "messages")

    def all_messages(self) -> list[JsonObject]:
        """Return every message of the current branch, oldest first. Raises ChatError."""
        messages = page = self.newest(_PAGE)
        while len(page) == _PAGE:
            query = {"limit": str(_PAGE), "before": str(messages[0].get("id"))}
            page = objects(self._server.request("GET", conversation_path(self.session_id), query), "messages")
            messages = page + messages
        return messages

    def ask(self, question: str, listener: AnswerListener) -> Answer:
        """Ask, show the answer as it arrives, and return it. Ctrl-C stops it. Raises ChatError."""
        self._await_stopped_answer()
        answer = Answer()
        request_id = str(new_id())
        try:
            self._generate(question, request_id, answer, listener)
        except KeyboardInterrupt:
            answer.stopped, self._stopped_request = True, request_id
            answer.seconds = time.monotonic() - answer.began
        self.turns.append(Turn(question, answer.content))
        return answer

    def _generate(self, question: str, request_id: str, answer: Answer, listener: AnswerListener) -> None:
        """Ask; once more in another way where the server says that it cannot do what was asked for."""
        while True:
            try:
                self._follow(AnswerStream(self._server, self._payload(question), request_id), answer, listener)
            except Refused as error:
                if answer.content or answer.reasoning or not self._adapt(error):
                    raise
            else:
                return

    def _follow(self, stream: AnswerStream, answer: Answer, listener: AnswerListener) -> None:
        try:
            for chunk in stream:
                if chunk is None:
                    if answer.first_seconds is None:
                        listener.waiting(time.monotonic() - answer.began)
                    continue
                delta = answer.add(chunk)
                if delta.get("reasoning_content"):
                    listener.reasoning(delta["reasoning_content"] or "")
                if delta.get("content"):
                    listener.content(delta["content"] or "")
        finally:
            stream.close()
        # Another program's server, which leaves the history to its clients.
        self._sends_whole |= not stream.keeps_sessions and self._began_here

    def _adapt(self, error: Refused) -> bool:
        """Return whether the question can be asked in another way, which it will be from now on."""
        if error.code == "not_supported" and error.param == "truncation" and self._truncates:
            self._truncates = False
            return True
        forgets = (error.code, error.param) == ("not_supported", "use_history") or error.code == "database_unavailable"
        if forgets and self._began_here and not self._sends_whole:
            self._sends_whole = True
            return True
        return False

    def _payload(self, question: str) -> JsonObject:
        system = self.options.system
        messages: list[JsonObject] = [] if system is None else [{"role": "system", "content": system}]
        if self._sends_whole:
            messages += [message for turn in self.turns for message in turn.messages()]
        return {
            **self.options.fields(),
            "messages": [*messages, {"role": "user", "content": question}],
            "session_id": self.session_id,
            "use_history": not self._sends_whole,
            **({"truncation": "auto"} if self._truncates else {}),
        }

    def _await_stopped_answer(self) -> None:
        """Wait until the server has recorded the answer that was stopped, so that what follows comes after it."""
        request_id, self._stopped_request = self._stopped_request, None
        deadline, pause = time.monotonic() + _SETTLE_SECONDS, _FIRST_PAUSE
        while request_id is not None and time.monotonic() < deadline:
            try:
                if any(message.get("request_id") == request_id for message in self.newest(2)):
                    return
            except Refused:  # this key may not read, or there is no database: nobody can tell
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def take_back(self) -> str | None:
        """Take the last question and its answer back, and return the question; None where there is none.

        The server deletes both. Where this key may not do that, or the database is away, the next question begins a
        branch without them. Raises ChatError where neither is possible.
        """
        self._await_stopped_answer()
        try:
            question = self._delete_last_turn()
        except Refused as error:
            if error.status not in (403, 404, 503) or not (self._began_here and self.turns):
                raise
            return self._leave_out_last_turn()
        if self.turns and self.turns[-1].question == question:
            self.turns.pop()
            if self._began_here and not self.turns:
                # Its title has the question too.
                self._server.request("DELETE", conversation_path(self.session_id))
        return question

    def _leave_out_last_turn(self) -> str:
        """Forget the last turn here. The next question goes with all that is left, to a conversation that has it."""
        question = self.turns.pop().question
        self._sends_whole = True
        if not self.turns:
            self.session_id = _new_session_id()
        return question

    def _delete_last_turn(self) -> str | None:
        """Delete the newest items up to the user's last message, and return its text."""
        path = conversation_path(self.session_id, "/items")
        for item in self._items(path):
            self._server.request("DELETE", f"{path}/{item.get('id')}")
            if item.get("role") == "user":
                return text_of(item.get("content"))
        return None

    def _items(self, path: str) -> Iterator[JsonObject]:
        """Yield the items, the newest first. Those that were yielded are deleted when the next page is read."""
        while page := objects(self._server.request("GET", path, _ITEM_PAGE), "data"):
            yield from page


def text_of(content: object) -> str:
    """Return what a message says, also where its content is a list of parts. What is no text is named by its kind."""
    if isinstance(content, list):
        return "\n".join(_text_of_part(part) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _text_of_part(part: JsonObject) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else f"[{part.get('type')}]"


def _new_session_id() -> str:
    """Return an id that says when the conversation began, and that can be typed."""
    return f"chat-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
