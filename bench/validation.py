"""How long it takes to load a chat request, which is to check it, before anything is asked of the model server.

Nothing is imported but ``load`` and the schema, so a copy of this file measures an older checkout too: put it into
``bench/`` there and run ``python -m bench.validation`` in both by turns.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from mistral_api.wire import ChatCompletionRequest, load

SIZES = (1, 100, 1000)
# Messages to load between two looks at the clock.
MESSAGES = 1000

_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
_PARTS = [
    {"type": "text", "text": "What is in this picture?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/panda.png", "detail": "low"}},
]
# The messages of a request are these again and again.
_TURNS: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": "What is the weather like in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [_CALL], "refusal": None},
    {"role": "tool", "content": "Sunny, 21 degrees.", "tool_call_id": "call_1"},
    {"role": "assistant", "content": "It is sunny in Paris, at 21 degrees."},
    {"role": "user", "content": _PARTS},
    {"role": "assistant", "content": "A panda that eats bamboo."},
    {"role": "user", "content": "Thank you."},
    {"role": "assistant", "content": "You are welcome."},
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat_request(messages: int) -> dict[str, Any]:
    """A chat completion request with so many messages, a tool and the usual sampling fields."""
    return {
        "model": "mistral-7b-instruct",
        "messages": [_TURNS[number % len(_TURNS)] for number in range(messages)],
        "tools": [_TOOL],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 100,
        "stream": True,
    }


def load_us(messages: int) -> float:
    """Return the microseconds that one load of a request takes."""
    schema, request, loads = ChatCompletionRequest(), chat_request(messages), MESSAGES // messages
    began = time.perf_counter()
    for _ in range(loads):
        load(schema, request)
    return (time.perf_counter() - began) / loads * 1e6


def measure_validation(rounds: int = 50) -> None:
    """Print the median and the least of many rounds, for each size of a request."""
    for messages in SIZES:
        figures = [load_us(messages) for _ in range(rounds)]
        median, least = statistics.median(figures), min(figures)
        print(f"load a chat request, messages: {messages}, median {median:.0f} µs, least {least:.0f} µs")


if __name__ == "__main__":
    measure_validation()
