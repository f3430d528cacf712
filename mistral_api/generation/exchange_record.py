"""The record of one exchange: journaled when the request is accepted, and once more at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from mistral_api.errors import ApiError, Unavailable
from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.usage_meter import UsageFigures
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.asked_models import asked_model
from mistral_api.recording.checkpoints import Progress
from mistral_api.recording.exchange import Exchange, StorageRequest, StoredObject
from mistral_api.recording.recorder import Recorder, RecordingFailed
from mistral_api.upstream.transcript import Transcript

# The values of ``answer_status``.
COMPLETE, INTERRUPTED, FAILED = "complete", "interrupted", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOpening:
    """What is recorded of a valid request.

    ``messages``: what the client sent; ``continues``: the stored message that they follow, where it is known.
    ``store`` false (OpenAI's field) keeps the figures of a request and none of its text, or no more than its
    conversation (STORE_FALSE); no object is stored. ``client``,
    ``resends_history``, ``side_request`` and ``is_new_session`` are those of :class:`Exchange`.
    """

    messages: list[ChatMessage]
    session_id: str | None
    model: str | None
    continues: UUID | None = None
    stream: bool = False
    store: bool = True
    client: str | None = None
    resends_history: bool = False
    side_request: bool = False
    is_new_session: bool = False


@dataclass(frozen=True, slots=True)
class ExchangeOutcome:
    """How an exchange ended: its status (``complete``, ``interrupted`` or ``failed``) and why it failed."""

    status: str
    transcript: Transcript
    error: ApiError | None


# Makes the object that an exchange is stored as besides; None where nothing is to be stored.
MakeStoredObject = Callable[[ExchangeOutcome], StoredObject | None]


class ExchangeRecord:
    """What the journal gets to know of one exchange. It measures nothing, and tells nobody else.

    ``exchange`` is the data as it is known now; :meth:`end` is the last to write it.
    """

    def __init__(self, recorder: Recorder, endpoint: str, request: RequestContext) -> None:
        """``endpoint``: the path under which the exchange is recorded."""
        self._recorder = recorder
        self._position: int | None = None
        self._make_stored_object: MakeStoredObject | None = None
        # Counts only where the request is refused before its model is known to be served.
        self._asked_model = asked_model(request.body)
        self.exchange = Exchange(
            id=request.request_id,
            created_at=datetime.now(UTC),
            endpoint=endpoint,
            owner=request.caller.owner,
            client_address=request.caller.address,
            client_request_id=request.client_request_id,
        )

    @property
    def stores_text(self) -> bool:
        """Whether this server stores text at all (STORE_CONTENT)."""
        return self._recorder.recordable_messages([]) is not None

    def store_as(self, storing: StorageRequest, make: MakeStoredObject) -> None:
        """Store the exchange as an object of its own too, if its text is stored. Call it before :meth:`begin`.

        ``storing`` is what the object's store needs to know (``Exchange.storing``), ``make`` is called at the end.
        """
        self.exchange.storing = storing
        self._make_stored_object = make

    def begin(
        self,
        opening: ExchangeOpening,
        progress: Progress,
    ) -> None:
        """Journal a valid request before anything is generated. Raises Unavailable (``recording_unavailable``).

        ``progress`` returns the outcome if this process died now.
        """
        exchange = self.exchange
        exchange.session_id, exchange.model = opening.session_id, opening.model
        exchange.continues, exchange.stream = opening.continues, opening.stream
        exchange.client, exchange.resends_history = opening.client, opening.resends_history
        exchange.side_request, exchange.is_new_session = opening.side_request, opening.is_new_session
        exchange.messages = self._recorder.recordable_messages(opening.messages, store=opening.store)
        if exchange.messages is None or not opening.store:
            exchange.storing = None
        try:
            self._position = self._recorder.begin(exchange, progress)
        except RecordingFailed as error:
            raise Unavailable(
                "Requests cannot be recorded now, and this server answers none that it cannot record.",
                code="recording_unavailable",
                retry_after=5,
            ) from error

    def interrupted(self, transcript: Transcript, figures: UsageFigures) -> bytes:
        """Return the outcome, in the journal's form, if this process died now."""
        self._update(INTERRUPTED, transcript, figures)
        return self.exchange.interrupted_outcome()

    def end(self, outcome: ExchangeOutcome, figures: UsageFigures) -> None:
        """Journal the outcome. A disk that fails costs the record, never the response."""
        exchange, error = self.exchange, outcome.error
        if error is not None:
            exchange.status, exchange.error_code = error.status, error.code or error.type
            if exchange.model is None and self._asked_model is not None:
                exchange.model = self._recorder.asked_models.recorded_name(exchange.owner, self._asked_model)
        self._update(outcome.status, outcome.transcript, figures)
        if self._make_stored_object is not None and exchange.storing is not None:
            exchange.stored = self._make_stored_object(outcome)
        self._recorder.end(self._position, exchange)

    def _update(self, status: str, transcript: Transcript, figures: UsageFigures) -> None:
        exchange = self.exchange
        exchange.answer_status = status
        exchange.finish_reason = transcript.finish_reason
        exchange.model = exchange.model or transcript.model
        exchange.latency_ms = figures.latency_ms
        exchange.time_to_first_token_ms = figures.time_to_first_token_ms
        exchange.prompt_tokens, exchange.cached_tokens = figures.prompt_tokens, figures.cached_tokens
        exchange.completion_tokens = figures.completion_tokens
        exchange.tokens_per_second = figures.tokens_per_second
        # A complete answer may be empty. An interrupted one without a word is not stored.
        if exchange.messages is not None and (status == COMPLETE or transcript.has_content):
            exchange.answers = transcript.answers
