"""Stages that change a stream chunk by chunk; numbered choices.

Answers that the model server does not give in OpenAI's form: mended chunk by chunk, between it and the client.

Only requests that need it come through here; every other stream is relayed as the bytes it came in.

One stream made of what the model server streams, each chunk changed on its way.

Several choices, from one answer of the model server or from several: numbered through, with one usage.

llama.cpp gives no more choices at once than it has slots, and reports the usage of each choice apart, with each the
prompt that they share (tools/server/README.md, ``n``; seen on its server).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import orjson

from mistral_api.upstream.sse import DONE, ChunkStream, SSEStream, event_data, split_events
from mistral_api.wire.payload_types import Chunk


class ChunkStage(Protocol):
    """One change. Stages are of one answer: they may remember what came before."""

    def answer_begins(self) -> None:
        """The model server's first, or next, answer to the request begins."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        """What stands in this chunk's place; the chunk may be changed."""

    def end(self) -> list[Chunk]:
        """What comes after the last chunk."""


class StagedStream(SSEStream):
    """Those of one or several answers, one after the other, changed."""

    def __init__(self, streams: Iterable[ChunkStream], stages: Sequence[ChunkStage]) -> None:
        """``streams`` are taken when the one before has ended: the next request is sent no sooner."""
        self._streams = iter(streams)
        self._stages = stages
        self._open: ChunkStream | None = None
        super().__init__()

    def _read(self) -> Iterator[bytes]:
        for stream in self._streams:
            self._open = stream
            for stage in self._stages:
                stage.answer_begins()
            for events in stream:
                run = b"".join(self._changed(event) for event in split_events(events))
                if run:
                    yield run
            stream.close()
        rest = b"".join(_encoded(chunk) for chunk in self._ended())
        if rest:
            yield rest
        yield DONE + b"\n\n"

    def _changed(self, event: bytes) -> bytes:
        chunk = event_data(event)
        if not isinstance(chunk, dict):  # [DONE], and comments that keep a line open
            return b"" if event.startswith(b"data:") else event + b"\n\n"
        chunks = [chunk]
        for stage in self._stages:
            chunks = [changed for each in chunks for changed in stage.chunk(each)]
        return b"".join(_encoded(each) for each in chunks)

    def _ended(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for stage in self._stages:
            chunks = [changed for each in chunks for changed in stage.chunk(each)] + stage.end()
        return chunks

    def close(self) -> None:
        """End the request, whether or not all of it has been read."""
        if self._open is not None:
            self._open.close()


def _encoded(chunk: Chunk) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class ChoiceIndexStage:
    """The stage that numbers the choices and sums their usage."""

    def __init__(self, counts: Sequence[int] = (1,)) -> None:
        """``counts``: how many choices for each prompt every answer of the model server brings."""
        self._counts = counts
        self._answer = -1
        self._head: Chunk = {}
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completion = 0
        self._timings: Any = None

    def answer_begins(self) -> None:
        self._answer += 1

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        if not self._head:
            self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        chunk["id"] = self._head.get("id")
        usage, choices = chunk.pop("usage", None), chunk.get("choices") or []
        for choice in choices:
            choice["index"] = self._renumbered(int(choice.get("index") or 0))
        if isinstance(usage, dict):
            self._add(usage, choices[0]["index"] // sum(self._counts) if choices else 0)
            self._timings = chunk.get("timings", self._timings)
        return [chunk] if choices else []

    def _renumbered(self, index: int) -> int:
        """All choices of the first prompt, then all of the next one (OpenAI's ``CreateCompletionRequest``)."""
        prompt, which = divmod(index, self._counts[self._answer])
        return prompt * sum(self._counts) + sum(self._counts[: self._answer]) + which

    def _add(self, usage: dict[str, Any], prompt: int) -> None:
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        # The first to read a prompt tells what it cost: the others find it in the cache.
        self._prompts.setdefault(prompt, (int(usage.get("prompt_tokens") or 0), cached))
        self._completion += int(usage.get("completion_tokens") or 0)

    def end(self) -> list[Chunk]:
        prompt = sum(tokens for tokens, _ in self._prompts.values())
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion,
            "total_tokens": prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": sum(cached for _, cached in self._prompts.values())},
        }
        total = self._head | {"choices": [], "usage": usage}
        return [total if self._timings is None else total | {"timings": self._timings}]
