"""Conversations of a given length for benchmarks, each with words of its own, and the turns that continue them."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.corpus import make_text
from bench.kept_connection import Answer, KeptConnection
from bench.programs import BenchmarkError

ANSWER_TOKENS = 16
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


class Conversation(NamedTuple):
    """A conversation that a server has: its session, and its messages, the last of which is an answer."""

    session_id: str
    messages: list[dict[str, str]]


class Turns(NamedTuple):
    """What turns took: the median in milliseconds, how many they were, and the size of the longest prompt in bytes."""

    median: float
    number: int
    prompt_bytes: int


class Talker:
    """Has conversations with a server on loopback. For one thread."""

    def __init__(self, port: int, seed: int) -> None:
        self._connection = KeptConnection(port)
        self._random = random.Random(seed)  # noqa: S311 - the same texts each time
        self._seed, self._number = seed, 0

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def start(self, length: int) -> Conversation:
        """Make a conversation of so many messages, an even number, in one request. Raises BenchmarkError, OSError."""
        self._number += 1
        session_id = f"bench-{self._seed}-{self._number}"
        if length == 0:
            return Conversation(session_id, [])
        messages = [self._message("assistant" if number % 2 else "user") for number in range(length - 1)]
        answer = self._post(CHAT, {"messages": messages, "session_id": session_id})
        return Conversation(session_id, [*messages, _answer_of(answer)])

    def continue_by_session(self, conversations: Sequence[Conversation]) -> Turns:
        """Send each its next question by its session id, so that the server puts the history before it."""
        questions = [self._message("user") for _ in conversations]
        bodies: list[dict[str, Any]] = [
            {"messages": [question], "session_id": each.session_id, "use_history": True}
            for each, question in zip(conversations, questions, strict=True)
        ]
        prompts = [[*each.messages, question] for each, question in zip(conversations, questions, strict=True)]
        return self._time(CHAT, bodies, prompts)

    def continue_by_messages(self, conversations: Sequence[Conversation]) -> Turns:
        """Send each once more with its next question. Raises BenchmarkError where one is not recognised."""
        prompts = [[*each.messages, self._message("user")] for each in conversations]
        sessions = [each.session_id if each.messages else None for each in conversations]
        return self._time(CHAT, [{"messages": prompt} for prompt in prompts], prompts, sessions)

    def continue_response(self, previous: str | None, prompt_bytes: int, count: int) -> Turns:
        """Continue a response so many times, or begin as many; ``prompt_bytes``: of what was said before."""
        body = {} if previous is None else {"previous_response_id": previous}
        questions = [self._message("user") for _ in range(count)]
        bodies = [body | {"input": question["content"]} for question in questions]
        turns = self._time(RESPONSES, bodies, [[question] for question in questions])
        return turns._replace(prompt_bytes=prompt_bytes + turns.prompt_bytes)

    def respond(self, previous: str | None) -> tuple[str, int]:
        """Add a response to a chain; return its id, and the bytes of what was said. Raises BenchmarkError, OSError."""
        question = self._message("user")
        body = {"input": question["content"], "max_output_tokens": ANSWER_TOKENS}
        answer = self._post(RESPONSES, body if previous is None else body | {"previous_response_id": previous}).json()
        text = "".join(part["text"] for item in answer["output"] for part in item.get("content", []))
        return answer["id"], len(json.dumps([question, {"role": "assistant", "content": text}])) - len("[]")

    def _time(
        self,
        path: str,
        bodies: Sequence[dict[str, Any]],
        prompts: Sequence[list[dict[str, str]]],
        sessions: Sequence[str | None] = (),
    ) -> Turns:
        limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
        encoded = [json.dumps(body | {limit: ANSWER_TOKENS}).encode() for body in bodies]
        times, found = [], []
        for body in encoded:
            began = time.perf_counter()
            answer = self._connection.ask("POST", path, body)
            times.append((time.perf_counter() - began) * 1000)
            found.append(_require(answer).header(b"x-session-id"))
        for session, other in zip(sessions, found, strict=False):
            if session not in (None, other):
                raise BenchmarkError(f"The conversation '{session}' was not recognised: it became '{other}'.")
        return Turns(statistics.median(times), len(times), max(len(json.dumps(prompt)) for prompt in prompts))

    def _message(self, role: str) -> dict[str, str]:
        return {"role": role, "content": make_text(self._random)}

    def _post(self, path: str, body: dict[str, Any]) -> Answer:
        limits = {} if path == RESPONSES else {"max_tokens": ANSWER_TOKENS}
        return _require(self._connection.post(path, body | limits))


def _require(answer: Answer) -> Answer:
    if answer.status != 200:
        raise BenchmarkError(f"The server answered {answer.status}: {answer.body[:300]!r}")
    return answer


def _answer_of(answer: Answer) -> dict[str, str]:
    return {"role": "assistant", "content": answer.json()["choices"][0]["message"]["content"]}
