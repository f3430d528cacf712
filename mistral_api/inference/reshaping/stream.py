"""One stream made of what the model server streams, each chunk changed on its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import orjson

from mistral_api.inference.events import DONE, event_data, split_events
from mistral_api.inference.stream import ChunkStream, SSEStream
from mistral_api.schemas.payload_types import Chunk


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
