"""What a response is continued from: the same from memory as from PostgreSQL, whatever was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.editing import delete_conversation
from mistral_api.delivery.writer import writer_starter
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.preparation import parse_input_items, prepare_response
from mistral_api.responses.response_run import ResponseRun
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.security.access import Caller
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.sse import EventBatch, SSEStream, split_events
from tests.support.chat_chunks import CALLING, TALKING, THINKING, Chunk, stream

Deltas = list[dict[str, Any]]
Meanwhile = Callable[[], None]
LARGE = "data:image/png;base64," + "x" * 200


def _nothing() -> None:
    """Happens most of the time."""


class Answer(SSEStream):
    """A stream of the model server's, with these chunks."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        return (EventBatch(b"data: " + orjson.dumps(chunk) + b"\n\n") for chunk in self._chunks)

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """There is nothing to let go of."""


class Chain:
    """Responses of one process, each continuing the one before, and what another process would continue them from."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.engine, self._recorder = engine, recorder
        self.store, self._other = ResponseStore(engine, recorder), ResponseStore(engine, recorder)
        self.last: str | None = None

    def respond(self, given: Any, deltas: Deltas, finish: str = "stop", meanwhile: Meanwhile = _nothing) -> None:
        """Answer an input; ``meanwhile`` happens while the response is generated."""
        before = {"previous_response_id": self.last} if self.last else {}
        context = self.store.context("local", self.last) if self.last else StoredContext("sess_1")
        request = before | ({} if given is None else {"input": given})
        ready = prepare_response(request, parse_input_items(request), context, "m")
        asked = RequestContext(Caller("local", None, local=True), new_id(), None, {})
        exchange = RunningExchange(self._recorder, "/v1/responses", asked)
        run = ResponseRun(ready, exchange, lambda: Answer(stream(deltas, finish)))
        run.begin(self.store.cache)
        meanwhile()
        last = split_events(b"".join(run.pipeline))[-1]
        assert last.startswith((b"event: response.completed", b"event: response.incomplete"))
        self.last = str(run.response["id"])

    def contexts(self) -> tuple[StoredContext, StoredContext]:
        """What the last response is continued from: here, and where nothing is in memory."""
        assert self.last is not None
        return self.store.context("local", self.last), self._other.context("local", self.last)


@pytest.fixture
def chain(engine: Engine, tmp_path: Path) -> Iterator[Chain]:
    """An empty one; attachments of more than 100 bytes are not kept."""
    recorder = Recorder(tmp_path, RecordingPolicy(max_attachment_bytes=100), writer_starter(engine))
    recorder.start()
    yield Chain(engine, recorder)
    recorder.close()


def _user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "message", "role": "user", "content": list(parts)}]


def test_memory_and_postgresql_have_the_same_to_the_byte(chain: Chain) -> None:
    results = [{"type": "function_call_output", "call_id": f"call_{n}", "output": "rain"} for n in range(2)]
    turns: list[tuple[Any, Deltas, str]] = [
        ("A NUL: \0.", TALKING, "stop"),
        ("Weather?", THINKING + TALKING + CALLING, "tool_calls"),
        (results, TALKING, "stop"),
        (_user({"type": "input_text", "text": "This?"}, {"type": "input_image", "image_url": LARGE}), TALKING, "stop"),
        (None, TALKING, "length"),
        ("", [], "stop"),
        ("Weather?", CALLING[:2], "length"),
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


def test_a_response_whose_conversation_is_deleted_meanwhile_is_continued_without_it(chain: Chain) -> None:
    def delete() -> None:
        with Session(chain.engine) as session:
            delete_conversation(session, "local", "sess_1")
        chain.store.cache.remove_session("local", "sess_1")

    chain.respond("one", TALKING)
    chain.contexts()
    chain.respond("two", TALKING, meanwhile=delete)
    here, elsewhere = chain.contexts()
    assert here == elsewhere
    assert [message["content"] for message in here.messages] == ["two", "Hello, wörld!"]
