"""What it costs to check a chat request before anything is asked of the model server.

It uses nothing but ``mistral_api.wire``'s ``load``, so a copy of this file measures an older checkout just as well:
``python -m bench.validation`` in its root.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from mistral_api.wire import ChatCompletionRequest, load

SIZES = (1, 100, 1000)
# Loads between two looks at the clock, for requests of one message; longer requests need fewer.
LOADS = 500

_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
_PARTS = [
    {"type": "text", "text": "What is in this picture?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/panda.png", "detail": "low"}},
]
# A conversation goes through these again and again.
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


def load_us(messages: int, loads: int) -> float:
    """Microseconds that one load of a request takes, on average over so many loads."""
    schema, request = ChatCompletionRequest(), chat_request(messages)
    began = time.perf_counter()
    for _ in range(loads):
        load(schema, request)
    return (time.perf_counter() - began) / loads * 1e6


def measure_validation(rounds: int = 30) -> None:
    """Print the median and the least of many rounds, for each size of a request."""
    for messages in SIZES:
        figures = [load_us(messages, max(1, LOADS // messages)) for _ in range(rounds)]
        print(
            f"checking a request of {messages} messages: median {statistics.median(figures):.0f} µs, "
            f"least {min(figures):.0f} µs"
        )


if __name__ == "__main__":
    measure_validation()
