"""Large requests: work that grows with a request is done beside the event loop, where it would hold up all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mistral_api.event_loop import waiting

T = TypeVar("T")

# Of so many bytes: a fraction of a millisecond of work.
LARGE_BYTES = 256 << 10
# What a value is taken for that is no text.
_VALUE_BYTES = 8
_PROMPT_FIELDS = ("messages", "prompt", "input", "input_prefix", "input_suffix", "documents")
# More tools than clients have that were not made to be a burden.
_MANY_TOOLS = 200


def work_on(payload: Any, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, which reads all of a request once; a task has it done aside for a large one."""
    return waiting.aside(work) if waiting.in_task() and is_large(payload) else work()


def is_large(payload: Any) -> bool:
    """Return whether a request is large, by its prompt. It looks no further than that takes."""
    if not isinstance(payload, dict):
        return False
    if len(payload.get("tools") or ()) > _MANY_TOOLS:
        return True
    left = LARGE_BYTES
    values = [payload[name] for name in _PROMPT_FIELDS if name in payload]
    while values and left > 0:
        value = values.pop()
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict | list):
            left -= _VALUE_BYTES * len(value)
            if left > 0:
                values += value.values() if isinstance(value, dict) else value
    return left <= 0
