"""What a client of the soak sends: all kinds of requests in turn, each with words of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from bench.corpus import make_text
from bench.kept_connection import Answer, KeptConnection

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
# A conversation ends after so many turns, and another one begins.
LONGEST_CONVERSATION = 12
_READS = ("/v1/conversations?limit=5", "/v1/stats?hours=24", "/v1/models", "/health", "/metrics")


class SoakClient:
    """One client with a connection, and with conversations that go on. For one thread.

    ``tokens``: how long answers are. ``sent`` counts its requests, ``statuses`` the answers, and ``wrong`` those that
    nobody expected.
    """

    def __init__(self, port: int, number: int, tokens: int = 16) -> None:
        self._connection = KeptConnection(port)
        self._random = random.Random(number)  # noqa: S311 - the same requests each time
        self._number, self._tokens, self.sent = number, tokens, 0
        self._resent: list[dict[str, str]] = []
        self._session = self._response = ""
        self._turns = self._links = 0
        self.statuses: dict[int, int] = {}
        self.wrong: dict[str, int] = {}
        self._kinds, self._weights = zip(*self._mix(), strict=True)

    def _mix(self) -> list[tuple[Callable[[], None], int]]:
        """Return what this client does, and how often of a hundred times."""
        return [
            (self._ask, 25),
            (self._ask_as_stream, 17),
            (self._resend_history, 16),
            (self._go_on_with_session, 10),
            (self._go_on_with_response, 12),
            (self._complete, 4),
            (self._ask_as_anthropic, 4),
            (self._err, 5),
            (self._leave, 3),
            (self._read, 3),
            (self._reconnect, 1),
        ]

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def send_next(self) -> None:
        """Send one request, of a kind that chance decides, and count what came of it."""
        (kind,) = self._random.choices(self._kinds, self._weights)
        try:
            kind()
        except (OSError, ValueError, KeyError) as error:
            self._connection.close()
            self._count_wrong(f"{kind.__name__.strip('_')}: {type(error).__name__}")
        self.sent += 1

    def _count_wrong(self, what: str) -> None:
        self.wrong[what] = self.wrong.get(what, 0) + 1

    def _post(self, path: str, body: dict[str, Any], *headers: str, expected: int = 200) -> Answer:
        return self._noted(self._connection.post(path, body, *headers), path, expected)

    def _noted(self, answer: Answer, what: str, expected: int = 200) -> Answer:
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.status != expected:
            self._count_wrong(f"{what}: {answer.status}")
        return answer

    def _words(self) -> str:
        return make_text(self._random)

    def _chat(self, messages: list[dict[str, str]] | None = None, **fields: Any) -> dict[str, Any]:
        if messages is None:
            messages = [{"role": "user", "content": self._words()}]
        return {"messages": messages, "max_tokens": self._tokens, **fields}

    def _ask(self) -> None:
        self._post(CHAT, self._chat(), f"X-Request-Id: soak-{self._number}-{self.sent}")

    def _ask_as_stream(self) -> None:
        self._post(CHAT, self._chat(stream=True, stream_options={"include_usage": True}))

    def _resend_history(self) -> None:
        """Send a conversation once more with its next question: it is recognised by its answers."""
        if len(self._resent) >= 2 * LONGEST_CONVERSATION:
            self._resent = []
        self._resent.append({"role": "user", "content": self._words()})
        answer = self._post(CHAT, self._chat(self._resent)).json()
        self._resent.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"] or ""})

    def _go_on_with_session(self) -> None:
        """Send the next question of a session, whose history the server loads."""
        if self._turns % LONGEST_CONVERSATION == 0:
            self._session = f"soak-{self._number}-{self._turns}-{self._random.randrange(1 << 40)}"
        self._turns += 1
        self._post(CHAT, self._chat(session_id=self._session, use_history=True))

    def _go_on_with_response(self) -> None:
        body: dict[str, Any] = {"input": self._words(), "max_output_tokens": self._tokens}
        if self._links % LONGEST_CONVERSATION:
            body["previous_response_id"] = self._response
        if self._random.random() < 0.3:
            self._post(RESPONSES, body | {"stream": True})
            return
        self._response = self._post(RESPONSES, body).json()["id"]
        self._links += 1

    def _complete(self) -> None:
        stream = self._random.random() < 0.5
        self._post(COMPLETIONS, {"prompt": self._words(), "max_tokens": self._tokens, "stream": stream})

    def _ask_as_anthropic(self) -> None:
        self._post("/v1/messages", self._chat(stream=self._random.random() < 0.5))

    def _err(self) -> None:
        """Send what is refused, each time in other words."""
        number = self._random.randrange(1 << 40)
        bad = {"temperature": f"hot-{number}"}, {"messages": [{"role": f"role-{number}", "content": "x"}]}, {"n": -1}
        match self._random.randrange(4):
            case 0:
                self._post(CHAT, self._chat() | self._random.choice(bad), expected=400)
            case 1:
                answer = self._connection.ask("POST", CHAT, b'{"messages": [' + str(number).encode())
                self._noted(answer, "cut JSON", 400)
            case 2:
                self._noted(self._connection.ask("GET", f"/v1/nowhere-{number}"), "no path", 404)
            case _:
                self._post(RESPONSES, {"input": "x", "previous_response_id": f"resp_{number}"}, expected=400)

    def _leave(self) -> None:
        """Hang up while a stream is on its way."""
        stream = {"stream": True, "max_tokens": 200}
        messages = [{"role": "user", "content": f"{self._words()} rate=100 tokens=200"}]
        self._connection.leave_after_first_bytes(CHAT, self._chat(messages) | stream)

    def _read(self) -> None:
        path = self._random.choice(_READS)
        self._noted(self._connection.ask("GET", path), path)

    def _reconnect(self) -> None:
        self._connection.close()
        self._ask()
