"""Stages: what llama.cpp does not give in OpenAI's form is changed chunk by chunk on its way to the client.

Only requests that need it come through here. Every other stream is relayed as the bytes that arrived.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from mistral_api.payload_types import pick
from mistral_api.payload_types.completions import Chunk, Timings, Usage
from mistral_api.upstream.sse import EventBatch, SSEStream, StreamEvent, encode_event
from mistral_api.upstream.token_tally import read_usage


class ChunkStage(ABC):
    """One change of the chunks. A stage serves one request, and may remember earlier chunks."""

    def next_response(self) -> None:
        """The next response of the model server to the request begins, at first the first one."""
        return

    @abstractmethod
    def apply(self, chunk: Chunk) -> list[Chunk]:
        """Return the chunks that take this chunk's place; the chunk may be changed."""

    def figures(self, chunk: Chunk) -> Chunk:
        """Return the token counts of a chunk of the model server for the choices as this stage leaves them.

        It is called before :meth:`apply` is, and must not change the chunk.
        """
        return chunk

    def end(self) -> list[Chunk]:
        """Return the chunks that follow the last one."""
        return []


class StagedStream(SSEStream):
    """The chunks of one or several responses, one response after the other, changed by stages."""

    def __init__(self, streams: Iterable[SSEStream], stages: Sequence[ChunkStage]) -> None:
        """The next of ``streams`` is taken when the one before has ended: its request is sent no sooner."""
        self._streams = iter(streams)
        self._stages = stages
        self._current: SSEStream | None = None
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        for stream in self._streams:
            self._current = stream
            stream.report_figures(self._report)
            for stage in self._stages:
                stage.next_response()
            for batch in stream:
                changed = [each for event in batch.events for each in self._apply(event)]
                if changed:
                    yield _batch(changed, generated=batch.generated)
            stream.drain()
            stream.close()
        closing = [StreamEvent(encode_event(chunk), chunk) for chunk in self._end()]
        if closing:
            yield _batch(closing)

    def _report(self, figures: Chunk) -> None:
        for stage in self._stages:
            figures = stage.figures(figures)
        if figures.get("choices"):  # the usage of the whole reaches the reader as it is
            self._on_figures(figures)

    def _apply(self, event: StreamEvent) -> Iterator[StreamEvent]:
        if event.data is None:
            if not event.raw.startswith(b"data:"):  # a comment that keeps the line open
                yield event
            return
        if "usage" in event.data or "timings" in event.data:
            # A stage may keep the chunk back, or keep its usage for the end: by then the stream may have been cut off.
            self._report(event.data)
        chunks = [event.data]
        for stage in self._stages:
            chunks = [changed for chunk in chunks for changed in stage.apply(chunk)]
        yield from (StreamEvent(encode_event(chunk), chunk) for chunk in chunks)

    def _end(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for stage in self._stages:
            chunks = [changed for chunk in chunks for changed in stage.apply(chunk)] + stage.end()
        return chunks

    def drain(self) -> None:
        """Each response has been read to its end before the next one began."""

    def close(self) -> None:
        """End the current request, whether or not its response has been read."""
        if self._current is not None:
            self._current.close()


def _batch(events: list[StreamEvent], *, generated: bool = True) -> EventBatch:
    return EventBatch(b"".join(event.raw for event in events), events, generated=generated)


_FIGURES = ("usage", "timings", "prompt_progress")
_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class ChoiceIndexStage(ChunkStage):
    """Numbers the choices of one or several responses through, and sums up their usage.

    llama.cpp gives no more choices at once than it has slots. It reports the usage of each choice apart, and with each
    the prompt that the choices share (tools/server/README.md, ``n``; seen on its server).
    """

    def __init__(self, counts: Sequence[int] = (1,)) -> None:
        """``counts``: for each response of the model server, how many choices it brings for each prompt."""
        self._counts = counts
        self._response = -1
        self._head: Chunk = {}
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completion = 0
        self._timings: Timings | None = None
        # The choice that ended last: where llama.cpp gives the usage of a choice in a chunk of its own, it follows.
        self._ended = 0

    def next_response(self) -> None:
        self._response += 1

    def apply(self, chunk: Chunk) -> list[Chunk]:
        if not self._head:
            self._head = pick(chunk, _HEAD)
        chunk["id"] = self._head.get("id")
        usage, choices = chunk.pop("usage", None), chunk.get("choices") or []
        for choice in choices:
            choice["index"] = self._renumbered(int(choice.get("index") or 0))
            self._ended = choice["index"] if choice.get("finish_reason") else self._ended
        if isinstance(usage, dict):
            self._add(usage, choices[0]["index"] // sum(self._counts) if choices else 0)
            self._timings = chunk.get("timings", self._timings)
        return [chunk] if choices else []

    def figures(self, chunk: Chunk) -> Chunk:
        choices = chunk.get("choices")
        index = self._renumbered(int(choices[0].get("index") or 0)) if choices else self._ended
        return pick(chunk, _FIGURES) | {"choices": [{"index": index}]}

    def _renumbered(self, index: int) -> int:
        """Return the index in all: the choices of the first prompt, then those of the next (OpenAI's
        ``CreateCompletionRequest``)."""
        prompt, choice = divmod(index, self._counts[self._response])
        return prompt * sum(self._counts) + sum(self._counts[: self._response]) + choice

    def _add(self, usage: Usage, prompt: int) -> None:
        tokens = read_usage(usage)
        # The first choice to read a prompt tells what it cost: the others find it in the cache.
        self._prompts.setdefault(prompt, (tokens.prompt or 0, tokens.cached or 0))
        self._completion += tokens.completion or 0

    def end(self) -> list[Chunk]:
        prompt = sum(tokens for tokens, _ in self._prompts.values())
        usage: Usage = {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion,
            "total_tokens": prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": sum(cached for _, cached in self._prompts.values())},
        }
        total = self._head | {"choices": [], "usage": usage}
        return [total if self._timings is None else total | {"timings": self._timings}]
