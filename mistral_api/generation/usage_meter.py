"""What one exchange cost: latency, time to first token, tokens, tokens per second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mistral_api.upstream.transcript import Transcript


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """The figures of one exchange: times in milliseconds, tokens as the model server counts them; None: not known."""

    latency_ms: float
    time_to_first_token_ms: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    tokens_per_second: float | None


class UsageMeter:
    """Measures one exchange, from the moment it is made."""

    def __init__(self) -> None:
        # Whether the answer comes from the cache: nothing is generated then, and nothing read.
        self.from_cache = False
        self._started = time.monotonic()
        self._first_token_ms: float | None = None

    def note_first_token(self) -> bool:
        """Note that the first token has come; later calls change nothing. Return whether this was the first."""
        if self._first_token_ms is not None:
            return False
        self._first_token_ms = self._elapsed_ms()
        return True

    def measure(self, transcript: Transcript) -> UsageFigures:
        """Return the figures as they are now.

        Where no first token was seen (a response that came as a whole), llama.cpp's own ``timings`` tell when it was.
        """
        latency_ms, tokens, timings = self._elapsed_ms(), transcript.count_tokens(), transcript.timings or {}
        if self.from_cache:
            return UsageFigures(latency_ms, None, tokens.prompt, tokens.prompt, tokens.completion, None)
        first_token_ms = self._first_token_ms
        if first_token_ms is None and "predicted_ms" in timings:
            first_token_ms = max(0.0, latency_ms - timings["predicted_ms"])
        rate = timings.get("predicted_per_second") or _rate(tokens.completion, first_token_ms, latency_ms)
        return UsageFigures(latency_ms, first_token_ms, tokens.prompt, tokens.cached, tokens.completion, rate)

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000


def _rate(tokens: int | None, first_token_ms: float | None, latency_ms: float) -> float | None:
    """Return the tokens after the first one per second of the time that they took."""
    if first_token_ms is None or not tokens or tokens < 2:
        return None
    seconds = (latency_ms - first_token_ms) / 1000
    return (tokens - 1) / seconds if seconds > 0 else None
