"""An exchange while it runs: its record, its measurements, its feedback to the supervisor, and its one end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import chain

from mistral_api.constraints.gate import NO_CONSTRAINTS, AdmittedConstraints
from mistral_api.errors import ApiError, ModelServerRefused, internal_error
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.exchange_record import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    ExchangeOpening,
    ExchangeOutcome,
    ExchangeRecord,
)
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.generation.supervisor_feedback import SupervisorFeedback
from mistral_api.generation.usage_meter import UsageFigures, UsageMeter
from mistral_api.payload_types.completions import Chunk, Completion
from mistral_api.recording.recorder import Recorder
from mistral_api.tracing.trace import Generation, GenerationEnd
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import EventBatch, StreamEvent
from mistral_api.upstream.transcript import Transcript

# So much of an answer may have arrived before it is decoded.
MOST_UNREAD_BYTES = 64 << 10


class RunningExchange:
    """One request from its arrival to its end. The first end is recorded; later ones change nothing.

    The thread that answers the request calls it. The checkpoint thread asks for the progress meanwhile.
    ``record`` is the journal's side, ``transcript`` what the model has generated so far, ``feedback`` what the
    supervisor is told at the end, if anything; ``cache`` whether the answer was in the cache (``hit`` or ``miss``),
    None where it was not looked for. ``constraints``: the grammars and schemas that it uses.
    """

    def __init__(
        self, recorder: Recorder, endpoint: str, request: RequestContext, transcript: Transcript | None = None
    ) -> None:
        """``endpoint``: the path under which the exchange is recorded; ``transcript``: an empty one of the dialect."""
        self.record = ExchangeRecord(recorder, endpoint, request)
        self.transcript = Transcript() if transcript is None else transcript
        self.feedback: SupervisorFeedback | None = None
        self.cache: str | None = None
        self._permit = request.permit
        self._observed = request.observed
        self._body = request.body
        self._trace = request.call.trace
        # Lets go of the caller's place at the end, where the exchange holds it (:meth:`outlive_response`).
        self._let_go: Callable[[], None] | None = None
        self.constraints = NO_CONSTRAINTS
        self._meter = UsageMeter()
        # Guards the transcript, the end, and the record until then.
        self._lock = threading.Lock()
        self._ended = False
        # Whether the transcript has grown since the last checkpoint.
        self._grown = False
        # What has arrived and is not in the transcript yet, its bytes, and why some of it could not be read.
        self._unread: list[EventBatch] = []
        self._unread_bytes = 0
        self._unreadable: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether the exchange has ended."""
        return self._ended

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every response to a valid request, also to one that fails: the session that keeps it."""
        session_id = self.record.exchange.session_id
        return {"X-Session-Id": session_id} if session_id else {}

    def use_constraints(self, constraints: AdmittedConstraints, call: UpstreamCall) -> None:
        """Note what the request uses. ``call`` does not ask twice with what has been quarantined meanwhile."""
        self.constraints = constraints
        if constraints.uses:
            call.before_retry = constraints.require_free

    def begin(self, opening: ExchangeOpening) -> None:
        """Journal a valid request. Raises Unavailable (``recording_unavailable``)."""
        self._trace.describe(
            Generation(
                endpoint=self.record.exchange.endpoint,
                model=opening.model,
                session=opening.session_id,
                stream=opening.stream,
            )
        )
        with self._trace.span("journal", entry="opening"):
            self.record.begin(opening, self._progress)

    def note_cache(self, *, hit: bool) -> None:
        """Note whether the answer comes from the cache. The supervisor learns nothing of a request that does."""
        self.cache = "hit" if hit else "miss"
        if hit:
            self._meter.from_cache = True
            self.feedback = None

    def outlive_response(self) -> None:
        """Note that the exchange goes on in the background, when its HTTP response has been sent.

        It holds the place that the caller's limits give to the request, and its end is told by itself.
        """
        if self._permit is not None:
            self._let_go = self._permit.hold()
        if self._observed is not None:
            self._observed.detach_exchange()

    def note_first_token(self) -> None:
        """Note that the model server has begun to generate."""
        if self._meter.note_first_token():
            self._trace.note_first_token()

    def read(self, batch: EventBatch) -> None:
        """Have a batch of events taken into the transcript: soon, with others, or when the transcript is needed.

        So a chunk that is relayed is decoded when there is time for it.
        """
        with self._lock:
            self._unread.append(batch)
            self._unread_bytes += len(batch.raw)
            self._grown = True
            if self._unread_bytes >= MOST_UNREAD_BYTES:
                self._read_all()

    def _read_all(self) -> None:
        """Take all that has arrived into the transcript. The lock is held."""
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        try:
            self.transcript.add_chunks(chain.from_iterable(batch.chunks() for batch in unread))
        except Exception as error:  # noqa: BLE001 - it ends the exchange where the response would be complete
            self._unreadable = self._unreadable or error

    def settle(self) -> None:
        """Have all that was read in the transcript. Raises what made that impossible."""
        with self._lock:
            self._read_all()
        if self._unreadable is not None:
            raise self._unreadable

    def read_figures(self, chunk: Chunk) -> None:
        """Take token counts that no event brings, or brings late, into the transcript."""
        with self._lock:
            self._read_all()
            self.transcript.add_figures(chunk)
            self._grown = True

    def read_event(self, event: StreamEvent) -> None:
        """Take one event into the transcript."""
        if event.data is not None:
            with self._lock:
                self._read_all()
                self.transcript.add_chunk(event.data)
                self._grown = True

    def read_body(self, body: Completion) -> None:
        """Take a whole response, of an engine that was not asked for a stream, into the transcript."""
        with self._lock:
            self.transcript.add_body(body)

    def succeed(self) -> None:
        """End the exchange: the response is complete. Raises what has kept a part of it out of the transcript."""
        self.settle()
        self._end(COMPLETE, None)

    def fail(self, error: ApiError) -> None:
        """End the exchange: the request failed, or its client left. What was generated until then is stored."""
        with self._lock:
            self._read_all()
        self._end(INTERRUPTED if self.transcript.has_content else FAILED, error)

    @contextlib.contextmanager
    def failures_recorded(self) -> Iterator[None]:
        """Let whatever fails within end the exchange; the error then names the session that keeps it.

        A refusal of the model server names the part of the client's request that is at fault.
        """
        try:
            yield
        except ApiError as error:
            if isinstance(error, ModelServerRefused):
                name_refused_field(error, self._body)
            error.headers |= self.headers
            self.fail(error)
            raise
        except Exception:
            self.fail(internal_error())
            raise

    def _end(self, status: str, error: ApiError | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            figures = self._meter.measure(self.transcript)
        self._trace.end_upstream(_generation_end(self.transcript, figures, error))
        try:
            # Outside the lock: a slow disk must not hold up the checkpoints of others.
            with self._trace.span("journal", entry="outcome"):
                self.record.end(ExchangeOutcome(status, self.transcript, error), figures)
            if self.feedback is not None:
                self.feedback.report_end(self.record.exchange, error)
        finally:
            self._settle(figures)

    def _settle(self, figures: UsageFigures) -> None:
        """Count the tokens, let go of the place, tell the observers. The record is first: see :class:`DailyTokens`."""
        if self._permit is not None:
            self._permit.count_tokens((figures.prompt_tokens or 0) + (figures.completion_tokens or 0))
        if self._let_go is not None:
            self._let_go()
        if self._observed is not None:
            self._observed.note_exchange(self.record.exchange)

    def _progress(self) -> bytes | None:
        """Return the outcome if this process died now; None where it is the same as last time."""
        with self._lock:
            if self._ended or not self._grown:
                return None
            self._grown = False
            self._read_all()
            return self.record.interrupted(self.transcript, self._meter.measure(self.transcript))


def _generation_end(transcript: Transcript, figures: UsageFigures, error: ApiError | None) -> GenerationEnd:
    """Return what traces are told of the end."""
    first_token_ms = figures.time_to_first_token_ms
    return GenerationEnd(
        finish_reason=transcript.finish_reason,
        prompt_tokens=figures.prompt_tokens,
        cached_tokens=figures.cached_tokens,
        completion_tokens=figures.completion_tokens,
        first_token_seconds=None if first_token_ms is None else first_token_ms / 1000,
        error_code=None if error is None else error.code or error.type,
    )
