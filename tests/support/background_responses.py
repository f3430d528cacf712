"""Responses in the background without a model server: each answers with the chunks that a test gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import orjson

from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.completions import Chunk
from mistral_api.payload_types.responses import ResponsePayload
from mistral_api.recording.recorder import Recorder
from mistral_api.responses.background_response import BackgroundResponse
from mistral_api.responses.prepared_response import parse_input_items, prepare_response
from mistral_api.responses.response_cache import ResponseCache
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.security.access import Caller
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import EventBatch, SSEStream


class _Chunks(SSEStream):
    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = chunks
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        for chunk in self._chunks:
            yield EventBatch(b"data: " + orjson.dumps(chunk) + b"\n\n")

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """Nothing is held."""


def nothing_is_generated() -> Iterable[Chunk]:
    """Fail: the response is not to be generated."""
    raise AssertionError("nothing is generated here")


def background_response(
    recorder: Recorder,
    chunks: Callable[[], Iterable[Chunk]] = nothing_is_generated,
    *,
    size: int = 1,
    instructions: str = "",
) -> BackgroundResponse:
    """Return a response of the owner ``me``, journaled if the recorder has a journal."""
    request: ResponsePayload = {"input": "Hi.", "background": True, "instructions": instructions}
    ready = prepare_response(request, parse_input_items(request), StoredContext("sess_1"), "m")
    asked = RequestContext(Caller("me", None, local=True), new_id(), None, request)
    call = UpstreamCall()
    run = ResponseRun(ready, RunningExchange(recorder, "/v1/responses", asked), lambda: _Chunks(chunks()))
    run.begin(ResponseCache())
    return BackgroundResponse("me", run, call, size)
