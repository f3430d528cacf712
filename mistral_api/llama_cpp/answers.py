"""llama.cpp's own form of an answer: read for the record, put together from a stream, cut to the fields asked for.

An event is ``{"index", "content", "tokens", "stop": false, …}``; the last one of an index has ``"stop": true``
and the figures. An answer that does not stream is that last object with the whole content, or an array of them where
more than one was asked for (several prompts, or ``n``).
"""

from __future__ import annotations

from typing import Any

from mistral_api.inference.transcript import Transcript

_FINISH = {"eos": "stop", "word": "stop", "limit": "length"}
# Fields that arrive piece by piece.
_GATHERED = ("tokens", "completion_probabilities")


class NativeTranscript(Transcript):
    """The growing record of one answer, or of one an index."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        super().__init__(choices_per_prompt)
        self.lasts: dict[int, dict[str, Any]] = {}
        self._gathered: dict[int, dict[str, list[Any]]] = {}

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """Take one event."""
        index, last = int(chunk.get("index") or 0), chunk.get("stop") is True
        gathered = self._gathered.setdefault(index, {})
        for name in _GATHERED:
            if chunk.get(name) and "prompt_progress" not in chunk:
                gathered[name] = gathered.get(name, []) + chunk[name]
        said = {"index": index, "text": chunk.get("content") or None}
        if last:
            self.lasts[index] = chunk
            said["finish_reason"] = _FINISH.get(str(chunk.get("stop_type")), "stop")
        super().add_chunk({"choices": [said], **_counts(chunk, last)})

    def answers(self) -> list[dict[str, Any]]:
        """The whole answers, in order of their index."""
        return [self._answer(index) for index in sorted(self.lasts)]

    def _answer(self, index: int) -> dict[str, Any]:
        content = self.choices[index].message.get("content") or ""
        return self.lasts[index] | {"content": content, "tokens": []} | self._gathered.get(index, {})


def _counts(chunk: dict[str, Any], last: bool) -> dict[str, Any]:
    """The figures of an event under OpenAI's names."""
    counts: dict[str, Any] = {name: chunk[name] for name in ("model", "timings") if name in chunk}
    if last and "tokens_evaluated" in chunk:
        cached = (chunk.get("timings") or {}).get("cache_n")
        counts["usage"] = {
            "prompt_tokens": chunk["tokens_evaluated"],
            "completion_tokens": chunk.get("tokens_predicted"),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return counts


def assemble_native_body(transcript: NativeTranscript, **_options: Any) -> dict[str, Any]:
    """The answers of a complete transcript, under one name: they go out alone where there is but one."""
    return {"answers": transcript.answers()}


def selected(answer: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """``response_fields``: only these, each by its path (``generation_settings/n_predict``), as far as they are there.

    Done here, for the record needs the others.
    """
    if not fields:
        return answer
    found: dict[str, Any] = {}
    for path in fields:
        value: Any = answer
        for name in path.split("/"):
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            found[path] = value
    return found


_ABSENT = object()
