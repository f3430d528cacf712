"""What recognising a conversation costs: the memory of its index at its bound, and the time of each request."""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from mistral_api.conversations.recognition import RecognitionIndex
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id, new_session_id

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TURNS = 5
_MOST_FIGURES = 5000


def measure_recognition(messages: int = 1_000_000) -> None:
    """Feed the index so many messages in conversations of ten, each turn with the whole history, and print."""
    index, before = RecognitionIndex(), _resident_bytes()
    found_us: list[float] = []
    noted_us: list[float] = []
    for number in range(messages // (2 * _TURNS)):
        # The figures must not take the memory that is measured.
        del found_us[_MOST_FIGURES:], noted_us[_MOST_FIGURES:]
        _hold_conversation(index, number, found_us, noted_us)
        if number % 10_000 == 0:
            print(f"{number * 2 * _TURNS:>9} messages: {index.size} remembered, {_megabytes(before):.1f} MB")
    print(f"{messages:>9} messages: {index.size} remembered, {_megabytes(before):.1f} MB")
    print(f"find: {statistics.median(found_us):.1f} us, note: {statistics.median(noted_us):.1f} us (medians)")


def _hold_conversation(index: RecognitionIndex, number: int, found_us: list[float], noted_us: list[float]) -> None:
    history: list[ChatMessage] = []
    sessions = set()
    for turn in range(_TURNS):
        history.append({"role": "user", "content": f"Question {turn} of conversation {number}: what is it about?"})
        began = time.perf_counter()
        match = index.find("local", None, history)
        found_us.append((time.perf_counter() - began) * 1e6)
        exchange = _exchange(
            match.session_id if match else new_session_id(), history, f"Answer {turn} of {number}. " * 5
        )
        sessions.add(exchange.session_id)
        began = time.perf_counter()
        index.note(exchange)
        noted_us.append((time.perf_counter() - began) * 1e6)
        history.append({"role": "assistant", "content": f"Answer {turn} of {number}. " * 5})
    assert len(sessions) == 1, "a conversation was not recognised"  # noqa: S101 - the figures would mean nothing


def _exchange(session_id: str, history: list[ChatMessage], answer: str) -> Exchange:
    return Exchange(
        id=new_id(),
        created_at=datetime.now(UTC),
        endpoint="/v1/chat/completions",
        owner="local",
        session_id=session_id,
        messages=list(history),
        answers=[{"content": answer}],
    )


def _megabytes(before: int) -> float:
    return (_resident_bytes() - before) / 1e6


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
