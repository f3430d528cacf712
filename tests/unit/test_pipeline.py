"""The pipeline of a generation ends once: later ends change nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from mistral_api.errors import ApiError, ModelServerFailed, ModelServerRefused
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.exchange_record import ExchangeOpening
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.generation.renderer import ChatRenderer
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import Chunk
from mistral_api.recording.backlog import Backlog
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import Journal
from mistral_api.recording.recorder import Recorder
from mistral_api.security.access import Caller
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.sse import EventBatch, SSEStream
from tests.support.chat_chunks import TEXT_DELTAS, chunk_stream
from tests.support.exchanges import make_exchange, record_exchange, undelivered_recorder
from tests.support.processes import wait_for


class Chunks(SSEStream):
    """A stream of these batches, which may break off with an error."""

    def __init__(self, batches: list[bytes], error: ApiError | None = None) -> None:
        self._raw, self._error = batches, error
        self.closed = False
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        yield from map(EventBatch, self._raw)
        if self._error is not None:
            raise self._error

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """Note that the request has ended."""
        self.closed = True


HELLO = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunk_stream(TEXT_DELTAS, "stop")]

# A chunk that no transcript can take.
NONSENSE = b'data: {"choices":[{"index":0,"delta":{"content":5}}]}\n\n'


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder without a database."""
    recorder = undelivered_recorder(tmp_path / "journal")
    recorder.start()
    yield recorder
    recorder.close(seconds=0)


def _pipeline(recorder: Recorder, chunks: Chunks) -> GenerationPipeline:
    context = RequestContext(Caller("local", None, local=True), new_id(), None, {})
    exchange = RunningExchange(recorder, "/v1/chat/completions", context)
    messages: list[ChatMessage] = [{"role": "user", "content": "Hello"}]
    exchange.begin(ExchangeOpening(messages=messages, session_id="sess_1", model="m", stream=True))
    renderer = ChatRenderer(exchange.transcript, {}, "sess_1")

    def name_refused_field(_error: ModelServerRefused) -> None:
        """Nothing is refused here."""

    return GenerationPipeline(exchange, renderer, lambda: chunks, name_refused_field)


def _recorded(tmp_path: Path) -> list[Exchange]:
    backlog = Backlog(tmp_path / "journal" / "journal.sqlite3")
    try:
        return [entry.exchange() for entry in backlog.oldest_entries(10, 1 << 20)]
    finally:
        backlog.close()


def test_successful_stream_is_recorded_as_200_when_the_journal_is_written_after_its_close(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    pipeline = _pipeline(recorder, Chunks(HELLO))
    with monkeypatch.context() as disk:
        disk.setattr(Journal, "end", full)
        assert b"".join(pipeline).endswith(b"data: [DONE]\n\n")
        pipeline.close()  # as the WSGI server does at the end of every stream
    record_exchange(recorder, make_exchange())
    (exchange,) = [each for each in _recorded(tmp_path) if each.id == pipeline.exchange.record.exchange.id]
    assert (exchange.status, exchange.error_code, exchange.answer_status) == (200, None, "complete")


def test_first_end_of_a_generation_wins_over_later_ones(recorder: Recorder, tmp_path: Path) -> None:
    chunks = Chunks(HELLO[:3], ModelServerFailed("The model server failed: out of paper"))
    pipeline = _pipeline(recorder, chunks)
    content = b"".join(pipeline)
    assert orjson.loads(content.rsplit(b"data: ", 1)[1])["error"]["code"] == "model_server_error"
    pipeline.close()
    pipeline.exchange.succeed()
    assert pipeline.fail(ModelServerFailed("once more")) == b""
    assert chunks.closed
    (exchange,) = _recorded(tmp_path)
    assert (exchange.status, exchange.error_code, exchange.answer_status) == (502, "model_server_error", "interrupted")
    assert exchange.answers == [{"content": "Hello"}]


def test_exchange_is_recorded_where_what_was_relayed_last_makes_no_sense(recorder: Recorder, tmp_path: Path) -> None:
    pipeline = _pipeline(recorder, Chunks([*HELLO[:3], NONSENSE]))
    events = iter(pipeline)
    assert [next(events) for _ in range(4)] == [*HELLO[:3], NONSENSE]
    pipeline.close()
    (exchange,) = _recorded(tmp_path)
    assert (exchange.status, exchange.answers) == (499, [{"content": "Hello"}])


def test_events_before_one_that_makes_no_sense_are_sent(recorder: Recorder, tmp_path: Path) -> None:
    # A batch that mentions the usage is rendered event by event.
    pipeline = _pipeline(recorder, Chunks([b"".join(HELLO[:3]) + NONSENSE.replace(b"}]}", b'}],"usage":null}')]))
    sent = list(pipeline)
    assert sent[0] == b"".join(HELLO[:3])
    assert orjson.loads(sent[1].removeprefix(b"data: "))["error"]["code"] == "internal_error"
    (exchange,) = _recorded(tmp_path)
    assert (exchange.status, exchange.answers) == (500, [{"content": "Hello"}])


def test_client_is_told_when_the_end_cannot_be_recorded(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("out of order")

    pipeline = _pipeline(recorder, Chunks(HELLO))
    monkeypatch.setattr(Journal, "end", broken)
    content = b"".join(pipeline)
    assert content.startswith(b"".join(HELLO[:3]))
    assert orjson.loads(content.rsplit(b"data: ", 1)[1])["error"]["code"] == "internal_error"
    pipeline.close()


def test_stream_of_a_disconnected_client_is_recorded_as_499_with_its_text(recorder: Recorder, tmp_path: Path) -> None:
    chunks = Chunks(HELLO)
    pipeline = _pipeline(recorder, chunks)
    events = iter(pipeline)
    assert [next(events), next(events), next(events)] == HELLO[:3]
    pipeline.close()
    assert chunks.closed
    (exchange,) = _recorded(tmp_path)
    assert (exchange.status, exchange.answer_status) == (499, "interrupted")
    assert exchange.answers == [{"content": "Hello"}]


class _ReportingChunks(Chunks):
    """A stream that reports on its prompt for a while, and then breaks off without a word of an answer."""

    def _read(self) -> Iterator[EventBatch]:
        for processed in (0, 64):
            report: Chunk = {"prompt_progress": {"total": 90, "cache": 0, "processed": processed}}
            self._on_figures(report)
            yield EventBatch(b"data: " + orjson.dumps(report) + b"\n\n", generated=False)
        raise ModelServerFailed("The model server died.")


def test_prompt_that_was_read_in_part_is_recorded_and_its_reports_are_no_token(
    recorder: Recorder, tmp_path: Path
) -> None:
    assert b'"processed":64' in b"".join(_pipeline(recorder, _ReportingChunks([])))
    (exchange,) = _recorded(tmp_path)
    assert (exchange.prompt_tokens, exchange.cached_tokens, exchange.completion_tokens) == (64, 0, 0)
    assert (exchange.time_to_first_token_ms, exchange.answer_status) == (None, "failed")


def test_checkpoint_has_the_part_of_the_prompt_that_was_read(recorder: Recorder, tmp_path: Path) -> None:
    events = iter(_pipeline(recorder, _ReportingChunks([])))
    assert [next(events) for _ in range(2)]
    database = sqlite3.connect(tmp_path / "journal" / "journal.sqlite3")

    def checkpoint() -> bool:
        return any(
            b'"prompt_tokens":64' in (row[0] or b"") for row in database.execute("SELECT outcome FROM checkpoints")
        )

    wait_for(checkpoint, "a checkpoint")
    database.close()
