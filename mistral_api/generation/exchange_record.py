"""The exchange while it happens: what is known at the start, what is learnt, how it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from mistral_api.control.feedback import FeedbackWriter
from mistral_api.errors import ApiError, Unavailable, internal_error
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.supervisor_feedback import new_slot_seed, report_generation
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import Recorder, RecordingFailed
from mistral_api.upstream.sse import event_data, split_events
from mistral_api.upstream.transcript import Transcript


@dataclass(frozen=True, slots=True)
class ExchangeOutcome:
    """How an exchange ended: ``complete``, ``interrupted`` or ``failed``, what was said, and why it failed."""

    status: str
    transcript: Transcript
    error: ApiError | None


# Makes the object that is stored of an exchange; None where nothing is to be stored.
Finish = Callable[[ExchangeOutcome], dict[str, Any] | None]


class ExchangeRecord:
    """An exchange that has not ended. Ending it records it, once; later endings change nothing."""

    def __init__(
        self,
        recorder: Recorder,
        reports: FeedbackWriter | None,
        path: str,
        asked: RequestContext,
        transcript: type[Transcript] = Transcript,
    ) -> None:
        """``path``: the endpoint, as it is recorded. ``transcript``: the kind that reads its answers."""
        self._recorder = recorder
        self._reports = reports
        # What the model server is asked to use, where the request leaves it to us.
        self.seed: int | None = None
        self._started = time.monotonic()
        self._position: int | None = None
        # The checkpoints are made by a thread of their own while the answer is read.
        self._lock = threading.Lock()
        self._unwritten = False
        self.ended = False
        self._kind = transcript
        self.transcript = transcript()
        self._finish: Finish | None = None
        self.record = Exchange(
            id=asked.request_id,
            created_at=datetime.now(UTC),
            endpoint=path,
            owner=asked.caller.owner,
            client_address=asked.caller.address,
            client_request_id=asked.client_request_id,
        )

    def begin(
        self,
        payload: dict[str, Any],
        session_id: str | None,
        model: str | None,
        messages: list[dict[str, Any]],
        continues: UUID | None = None,
    ) -> None:
        """Note what a valid request asks for, and journal it. Raises Unavailable (``recording_unavailable``).

        ``continues``: the stored message that ``messages`` follow, where it is known.
        """
        self.transcript = self._kind(payload.get("n") or 1)
        self.record.session_id = session_id
        self.record.model = model
        self.record.continues = continues
        self.record.stream = bool(payload.get("stream"))
        self.seed = new_slot_seed(payload) if self._reports is not None else None
        # ``store: false`` (OpenAI's field) keeps the figures of a request and none of its text.
        self.record.messages = None if payload.get("store") is False else self._recorder.recordable_messages(messages)
        if self.record.messages is None:
            self.record.storing = None
        try:
            self._position = self._recorder.begin(self.record, self._progress)
        except RecordingFailed as error:
            raise Unavailable(
                "Requests cannot be recorded now, and this server answers none that it cannot record.",
                code="recording_unavailable",
                retry_after=5,
            ) from error

    def store_as(self, storing: dict[str, Any], finish: Finish) -> None:
        """Keep the exchange as an object too, if its text is kept: call it before :meth:`begin`.

        ``storing`` is what the object's store needs to know.
        """
        self.record.storing = storing
        self._finish = finish

    @property
    def may_keep_text(self) -> bool:
        """Whether this server keeps what is said, where the request does not forbid it."""
        return self._recorder.recordable_messages([]) is not None

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to a valid request says, a failure too: the session that keeps it."""
        return {"X-Session-Id": self.record.session_id} if self.record.session_id else {}

    def first_bytes(self) -> None:
        """Note that the model server has begun to answer: the time to first token."""
        if self.record.time_to_first_token_ms is None:
            self.record.time_to_first_token_ms = self._elapsed_ms()

    def read(self, events: bytes) -> list[dict[str, Any]]:
        """Take a run of events of the answer into the transcript; answers them decoded."""
        chunks = [data for event in split_events(events) if isinstance(data := event_data(event), dict)]
        with self._lock:
            for chunk in chunks:
                self.transcript.add_chunk(chunk)
            self._unwritten = True
        return chunks

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Have whatever fails within end the exchange, and tell the client the session that keeps it."""
        try:
            yield
        except ApiError as error:
            error.headers |= self.headers
            self.fail(error)
            raise
        except Exception:
            self.fail(internal_error())
            raise

    def _progress(self) -> bytes | None:
        """The outcome if this process died now; None where it is the same as last time."""
        with self._lock:
            if self.ended or not self._unwritten:
                return None
            self._unwritten = False
            self._take_over("interrupted")
            return self.record.as_interrupted().outcome()

    def succeed(self) -> None:
        """The answer is complete."""
        self._end("complete", None)

    def fail(self, error: ApiError) -> None:
        """The request failed, or its client left; what was said until then is kept."""
        self.record.status, self.record.error_code = error.status, error.code or error.type
        self._end("interrupted" if self.transcript.said_anything else "failed", error)

    def _end(self, status: str, error: ApiError | None) -> None:
        with self._lock:
            if self.ended:
                return
            self.ended = True
            self._take_over(status)
            if self._finish is not None and self.record.storing is not None:
                self.record.stored = self._finish(ExchangeOutcome(status, self.transcript, error))
        self._recorder.end(self._position, self.record)
        if self._reports is not None:
            report_generation(self._reports, self.seed, self.record, error)

    def _take_over(self, status: str) -> None:
        """Bring the record up to what is known now."""
        record, transcript = self.record, self.transcript
        record.latency_ms = self._elapsed_ms()
        record.answer_status = status
        record.finish_reason = transcript.finish_reason
        record.model = record.model or transcript.model
        self._count()
        # An answer may be complete and empty; one cut short before its first word is none.
        if record.messages is not None and (status == "complete" or transcript.said_anything):
            record.answers = [transcript.choices[index].answer for index in sorted(transcript.choices)]

    def _count(self) -> None:
        """Take over the token counts, and work out the times that nobody measured."""
        record, transcript = self.record, self.transcript
        tokens = transcript.settle()
        record.prompt_tokens, record.cached_tokens = tokens.prompt, tokens.cached
        record.completion_tokens = tokens.completion
        timings = transcript.timings or {}
        if record.time_to_first_token_ms is None and "predicted_ms" in timings:
            record.time_to_first_token_ms = max(0.0, record.latency_ms - timings["predicted_ms"])
        record.tokens_per_second = timings.get("predicted_per_second") or self._rate()

    def _rate(self) -> float | None:
        """Tokens after the first one over the time they took."""
        record = self.record
        if record.time_to_first_token_ms is None or not record.completion_tokens or record.completion_tokens < 2:
            return None
        seconds = (record.latency_ms - record.time_to_first_token_ms) / 1000
        return (record.completion_tokens - 1) / seconds if seconds > 0 else None

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000
