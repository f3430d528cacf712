"""The context that a response is continued from is the same from memory and from PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.editing import delete_conversation
from mistral_api.delivery.writer import writer_starter
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.completions import Chunk, Delta
from mistral_api.payload_types.responses import ResponsePayload
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.prepared_response import parse_input_items, prepare_response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.security.access import Caller
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.sse import EventBatch, SSEStream, split_events
from tests.support.chat_chunks import CALL_DELTAS, REASONING_DELTAS, TEXT_DELTAS, chunk_stream
from tests.support.conversations import response_store

Deltas = list[Delta]
Meanwhile = Callable[[], None]
LARGE = "data:image/png;base64," + "x" * 200


def _do_nothing() -> None:
    """Do nothing during the generation."""


class FakeStream(SSEStream):
    """A stream of the model server with these chunks."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        return (EventBatch(b"data: " + orjson.dumps(chunk) + b"\n\n") for chunk in self._chunks)

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """Do nothing: there is no connection."""


class ResponseChain:
    """A chain of responses of one process, and the context that another process would continue it from."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.engine, self._recorder = engine, recorder
        self.store, self._other = response_store(engine, recorder), response_store(engine, recorder)
        self.last: str | None = None

    def respond(self, given: Any, deltas: Deltas, finish: str = "stop", meanwhile: Meanwhile = _do_nothing) -> None:
        """Create a response to an input; ``meanwhile`` is called during its generation."""
        before = {"previous_response_id": self.last} if self.last else {}
        context = self.store.context("local", self.last) if self.last else StoredContext("sess_1")
        request = cast("ResponsePayload", before | ({} if given is None else {"input": given}))
        ready = prepare_response(request, parse_input_items(request), context, "m")
        asked = RequestContext(Caller("local", None, local=True), new_id(), None, {})
        exchange = RunningExchange(self._recorder, "/v1/responses", asked)
        run = ResponseRun(ready, exchange, lambda: FakeStream(chunk_stream(deltas, finish)))
        run.begin(self.store.cache)
        meanwhile()
        last = split_events(b"".join(run.pipeline))[-1]
        assert last.startswith((b"event: response.completed", b"event: response.incomplete"))
        self.last = str(run.response["id"])

    def contexts(self) -> tuple[StoredContext, StoredContext]:
        """Return the context of the last response in this process, and in one with an empty cache, from PostgreSQL.

        Before it is delivered, the latter has the same one from the journal.
        """
        assert self.last is not None
        own, early = self.store.context("local", self.last), self._other.context("local", self.last)
        self._recorder.require_all_delivered()
        late = self._other.context("local", self.last)
        assert early == late
        return own, late


@pytest.fixture
def chain(engine: Engine, tmp_path: Path) -> Iterator[ResponseChain]:
    """An empty chain; attachments of more than 100 bytes are not stored."""
    recorder = Recorder(tmp_path, RecordingPolicy(max_attachment_bytes=100), writer_starter(engine))
    recorder.start()
    yield ResponseChain(engine, recorder)
    recorder.close()


def _user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "message", "role": "user", "content": list(parts)}]


def test_response_context_from_memory_equals_the_one_from_postgresql(chain: ResponseChain) -> None:
    results = [{"type": "function_call_output", "call_id": f"call_{n}", "output": "rain"} for n in range(2)]
    turns: list[tuple[Any, Deltas, str]] = [
        ("A NUL: \0.", TEXT_DELTAS, "stop"),
        ("Weather?", REASONING_DELTAS + TEXT_DELTAS + CALL_DELTAS, "tool_calls"),
        (results, TEXT_DELTAS, "stop"),
        (
            _user({"type": "input_text", "text": "This?"}, {"type": "input_image", "image_url": LARGE}),
            TEXT_DELTAS,
            "stop",
        ),
        (None, TEXT_DELTAS, "length"),
        ("", [], "stop"),
        ("Weather?", CALL_DELTAS[:2], "length"),
    ]
    for given, deltas, finish in turns:
        chain.respond(given, deltas, finish)
        here, elsewhere = chain.contexts()
        assert here == elsewhere
        assert orjson.dumps(here.messages, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
            elsewhere.messages, option=orjson.OPT_SORT_KEYS
        )
    assert "omitted" not in str(here.messages)
    assert len(here.messages) == 14


def test_response_is_continued_without_a_conversation_deleted_during_generation(chain: ResponseChain) -> None:
    def delete() -> None:
        with Session(chain.engine) as session:
            delete_conversation(session, "local", "sess_1")
        chain.store.cache.remove_session("local", "sess_1")

    chain.respond("one", TEXT_DELTAS)
    chain.contexts()
    chain.respond("two", TEXT_DELTAS, meanwhile=delete)
    here, elsewhere = chain.contexts()
    assert here == elsewhere
    assert [message["content"] for message in here.messages] == ["two", "Hello, wörld!"]
