"""What it costs that owners share no cache: the same conversations without keys, with one owner, and with two.

All stacks run at once, and each turn is sent to one after the other, so that whatever else the machine does falls on
all of them alike.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from bench.running import RunningStack, running_stack

ADMIN_KEY = "the-secret-of-the-benchmark"
# Two conversations that take turns, each of about 1,000 tokens of the demo model.
CONVERSATIONS, TURNS, FIRST_LINES = 2, 10, 140


@dataclass
class Caller:
    """The conversations of one stack, and what their turns took; ``secrets``: the API key of each conversation."""

    name: str
    running: RunningStack
    secrets: tuple[str | None, ...]
    messages: list[list[dict[str, str]]] = field(default_factory=list)
    processed: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def send_turn(self, conversation: int) -> None:
        """Send the next turn of a conversation with its whole history, and add what it took."""
        if conversation == len(self.messages):
            self.messages.append([])
        messages = self.messages[conversation]
        text = " ".join(f"line {conversation}-{line}," for line in range(FIRST_LINES)) if not messages else "Go on."
        messages.append({"role": "user", "content": text})
        body = {"messages": messages, "max_tokens": 16, "temperature": 0, "session_id": f"bench-{conversation}"}
        began = time.perf_counter()
        answer = self._post(body, self.secrets[conversation])
        self.seconds.append(time.perf_counter() - began)
        usage = answer["usage"]
        self.processed.append(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})

    def _post(self, body: dict[str, Any], secret: str | None) -> Any:
        connection = http.client.HTTPConnection(*self.running.api, timeout=300)
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def measure_owners() -> None:
    """Send the turns of each conversation to every stack, and print what they took compared with no keys."""
    usual = {"CONTEXT_SIZE": "16384", "PARALLEL": "4"}
    with contextlib.ExitStack() as stack:
        callers = [
            Caller("no keys", stack.enter_context(running_stack(**usual)), (None, None)),
            Caller(
                "one owner with a key",
                stack.enter_context(running_stack(**usual, ADMIN_API_KEY=ADMIN_KEY)),
                (ADMIN_KEY, ADMIN_KEY),
            ),
            Caller(
                "two owners",
                stack.enter_context(running_stack(**usual, ADMIN_API_KEY=ADMIN_KEY, ALLOW_ANONYMOUS="true")),
                (ADMIN_KEY, None),
            ),
        ]
        for _ in range(TURNS):
            for conversation in range(CONVERSATIONS):
                for caller in callers:
                    caller.send_turn(conversation)
        for caller in callers:
            _print(caller, callers[0])


def _print(caller: Caller, usual: Caller) -> None:
    """Print the sums of a caller, and their ratios to the usual one's; the first turns read the whole prompt."""
    later, former = caller.processed[CONVERSATIONS:], usual.processed[CONVERSATIONS:]
    ratios = [
        own / other for own, other in zip(caller.seconds[CONVERSATIONS:], usual.seconds[CONVERSATIONS:], strict=True)
    ]
    print(
        f"{caller.name}: {sum(caller.processed[:CONVERSATIONS])} prompt tokens in the first turns, {sum(later)} in the "
        f"{len(later)} later ones ({sum(later) / sum(former):.2f} times), median time of a later turn "
        f"{statistics.median(caller.seconds[CONVERSATIONS:]) * 1000:.0f} ms ({statistics.median(ratios):.2f} times)",
        flush=True,
    )
