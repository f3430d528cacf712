"""The way of a generation request: validate, find the history, plan, and run the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mistral_api.constraints.gate import AdmittedConstraints
from mistral_api.conversations.history import ContinuedSession, SessionHistory
from mistral_api.conversations.session_resolver import ResolvedSession, SessionResolver
from mistral_api.errors import ModelUnavailable
from mistral_api.generation.answer_cache import AnswerCache, CacheLookup, OpenStream
from mistral_api.generation.custom_inputs import input_constraints
from mistral_api.generation.declared_tools import chat_catalogue
from mistral_api.generation.endpoint import CHAT, Endpoint, RequestContext
from mistral_api.generation.exchange_record import ExchangeOpening
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.generation.plan import GenerationPlan, PlanRequest, UpstreamTraits, make_plan
from mistral_api.generation.planned_answer import PlannedAnswer
from mistral_api.generation.prompt import PromptBuilder, turns_of
from mistral_api.generation.prompt_check import PromptChecker
from mistral_api.generation.prompt_size import chat_size, prompt_sizes, prompts_of
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.generation.renderer import ResponseBody
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.generation.stages import StagedStream
from mistral_api.generation.stored_completion import store_completion
from mistral_api.generation.supervisor_feedback import SupervisorFeedback, new_slot_seed
from mistral_api.generation.token_needs import TokenNeeds
from mistral_api.grammars.request_budget import request_budget
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.recording.recorder import Recorder
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.catalogue import with_model
from mistral_api.upstream.client import UpstreamResponse
from mistral_api.upstream.model_servers import ModelServerEntry
from mistral_api.upstream.slot_gate import Admission
from mistral_api.upstream.slot_owners import PlacedRequest
from mistral_api.upstream.slot_table import PromptSource
from mistral_api.upstream.sse import ChunkStream, SSEStream
from mistral_api.upstream.transcript import Transcript
from mistral_api.wire import load
from mistral_api.wire.constraint_places import Constraint, PlacedSchema
from mistral_api.wire.tools import forces_call


@dataclass(frozen=True, slots=True)
class _PlannedRequest:
    """A request that is about to be sent. ``show_progress``: reports on the prompt are part of its stream."""

    endpoint: Endpoint
    plan: GenerationPlan
    show_progress: bool = False

    @property
    def path(self) -> str:
        return self.endpoint.upstream_path


class Generator:
    """Answers generation requests. One for the application; safe to use from many threads."""

    def __init__(
        self,
        server: ModelServerEntry,
        recorder: Recorder,
        sessions: SessionResolver,
        history: SessionHistory,
        prompts: PromptBuilder,
    ) -> None:
        """``server``: the model server that generates."""
        # The answers that may be given again; None where every answer is generated.
        self._answers: AnswerCache | None = None
        self._client = server.client
        self._catalogue = server.catalogue
        self._feedback = server.feedback
        self._constraints = server.constraints
        self._recorder = recorder
        self._sessions = sessions
        self._history = history
        self._prompts = prompts
        self._images = prompts.images
        self._gate = server.slot_gate
        self._slot_owners = server.slot_owners
        self._cache_salts = server.cache_salts
        self._system_fingerprint = server.system_fingerprint
        supervised, catalogue = self._client.supervised, self._catalogue
        self._traits = UpstreamTraits(
            supervised, lambda: supervised or catalogue.is_llama_cpp(), self._client.slots, server.limits
        )
        self._checker = PromptChecker(prompts.counter, self._traits.llama_cpp)
        self._idle_slots = server.idle_slots
        self._needs = TokenNeeds(server.shared_cache, server.process, prompts.counter)

    def use_cache(self, answers: AnswerCache | None) -> None:
        """Give answers again that this cache has, if there is one. Call it before the first request."""
        self._answers = answers

    @request_budget()
    def plan(self, endpoint: Endpoint, request: RequestContext) -> PlannedAnswer:
        """Return what answers a request. Raises our exceptions; whatever happens, the exchange is recorded."""
        exchange = self.exchange(endpoint.path, request, endpoint.dialect.transcript())
        with exchange.failures_recorded():
            payload = load(endpoint.schema, request.body)
            self.require_room()
            request.require_slot_choice(payload)
            admitted = self.admit(request, forced=endpoint.chat and _forces_call(payload))
            exchange.use_constraints(admitted, request.call)
            messages, exchange_id = endpoint.messages(payload), request.request_id
            self._images.require_allowed(messages, request.body)
            self._require_fit(endpoint, payload, messages, request.call)
            session = self._sessions.resolve(request.sender, payload.get("session_id"), messages, exchange_id)
            session_id = session.session_id
            planned, pipeline = self._begin(endpoint, payload, session, request, exchange)
        streams, ignored = bool(payload.get("stream")), endpoint.ignored_tools(request.body)
        make = partial(self._answer, planned, pipeline, request.call, stream=streams)
        return PlannedAnswer(session_id, exchange, make, request.call, pipeline, streams=streams, ignored_tools=ignored)

    def _answer(
        self, planned: _PlannedRequest, pipeline: GenerationPipeline, call: UpstreamCall, *, stream: bool
    ) -> ResponseBody | Iterable[bytes]:
        """Send a planned request. Return the response once it is whole, or, where it streams, once it has begun."""
        if not planned.plan.streamed:
            return pipeline.relay_whole(self._body_getter(planned, pipeline.exchange, call))
        if not stream:
            return pipeline.body()
        pipeline.open()
        return pipeline

    def require_room(self) -> None:
        """Raise Unavailable (``overloaded``) where a generation would be one too many, before it costs anything.

        Where answers are cached it may need no slot.
        """
        if self._answers is None:
            self._gate.require_room()

    def exchange(self, path: str, request: RequestContext, transcript: Transcript | None = None) -> RunningExchange:
        """Return the exchange of a request to an endpoint; it runs until its end is reported to it."""
        return RunningExchange(self._recorder, path, request, transcript)

    def admit(
        self, request: RequestContext, loaded: Sequence[PlacedSchema | Constraint] = (), *, forced: bool
    ) -> AdmittedConstraints:
        """Let the grammars and JSON schemas of a valid request pass, or raise what :meth:`ConstraintGate.admit` does.

        ``loaded``: those of the tools that its items, or its conversation, bring. ``forced``: it demands a call.
        """
        body = request.body
        tools = body.get("tools") if isinstance(body, dict) else None
        inputs = input_constraints(tools) if tools else ()
        return self._constraints.admit(body, request.caller, [*inputs, *loaded], forced=forced)

    def served_model(self, model: str | None) -> str | None:
        """Return the model that answers, where it is known; it may stand in for the one that is named.

        Raises NotFound for one that is not served.
        """
        return self._catalogue.resolve(model)

    def slot_seed(self, payload: ChatPayload, exchange: RunningExchange) -> int | None:
        """Have the supervisor told of a generation when it ends. Return the seed by which it recognises the slot."""
        if self._feedback is None:
            return None
        seed = new_slot_seed(payload.get("seed"))
        exchange.feedback = SupervisorFeedback(self._feedback, seed, exchange.constraints)
        return seed

    def plan_chat(self, wanted: PlanRequest, exchange: RunningExchange, call: UpstreamCall) -> Callable[[], SSEStream]:
        """Plan a valid chat payload. Return what opens the chunks that answer it, whether or not it asks for a stream.

        Both raise our exceptions.
        """
        plan = self._plan(CHAT, wanted, None, call)
        plan.ask_for_stream()
        return partial(self._open, _PlannedRequest(CHAT, plan), exchange, call)

    def _require_fit(
        self, endpoint: Endpoint, payload: ChatPayload, messages: list[ChatMessage], call: UpstreamCall
    ) -> None:
        """Refuse a request whose text is longer than the context could ever hold. Raises InvalidRequest.

        Where the oldest turns may be left out, the last one has to fit.
        """
        if not endpoint.chat:
            for size in prompt_sizes(payload):
                self._prompts.limit.require_fit(size, call)
            return
        truncated = payload.get("truncation") == "auto"
        if truncated:
            messages = turns_of(messages)[-1]
        size = chat_size(messages, payload, None if endpoint is CHAT and not truncated else "messages")
        self._prompts.limit.require_fit(size, call)

    def _begin(
        self,
        endpoint: Endpoint,
        payload: ChatPayload,
        session: ResolvedSession,
        request: RequestContext,
        exchange: RunningExchange,
    ) -> tuple[_PlannedRequest, GenerationPipeline]:
        """Journal a valid request. Return what the model server will be asked, and the pipeline that asks it."""
        model = self.served_model(payload.get("model"))
        payload = with_model(payload, model)
        exchange.transcript.choices_per_prompt = payload.get("n") or 1
        renderer = endpoint.dialect.renderer(exchange.transcript, payload, session.session_id)
        if endpoint is CHAT and payload.get("store"):
            store_completion(exchange.record, payload, renderer.body)
        if not session.is_new:
            payload = payload | {"session_id": session.session_id}
        continued = self._history.recall(payload, request.caller.owner) if endpoint.chat else None
        prompt, continued_prompt = self._with_images(payload, continued, request)
        seed = self.slot_seed(payload, exchange)
        exchange.begin(
            ExchangeOpening(
                messages=continued.new if continued else endpoint.messages(payload),
                session_id=session.session_id,
                model=model,
                continues=continued.continues if continued else None,
                stream=bool(payload.get("stream")),
                store=payload.get("store") is not False,
                client=session.client,
                resends_history=session.resends_history,
                side_request=session.side_request,
                is_new_session=session.is_new,
            )
        )
        plan = self._plan(endpoint, PlanRequest(prompt, seed), continued_prompt, request.call)
        show_progress = bool(payload.get("return_progress")) and endpoint.dialect.shows_progress
        planned = _PlannedRequest(endpoint, plan, show_progress)
        open_stream = partial(self._open, planned, exchange, request.call)
        name_field = partial(name_refused_field, body=request.body)
        return planned, GenerationPipeline(exchange, renderer, open_stream, name_field)

    def _with_images(
        self, payload: ChatPayload, continued: ContinuedSession | None, request: RequestContext
    ) -> tuple[ChatPayload, ContinuedSession | None]:
        """Return a request with the images that it names by their URLs; it is recorded without them."""
        body, call = request.body, request.call
        if continued is not None:
            # What the client has sent comes first: dead links of the history must not use up its time.
            lists = [continued.sent, continued.leading, continued.history]
            sent, leading, history = self._images.inline_each(lists, body, call)
            return payload, replace(continued, leading=leading, history=history, sent=sent)
        if "messages" not in payload:
            return payload, None
        return payload | {"messages": self._images.inline(payload["messages"], body, call)}, None

    def _plan(
        self,
        endpoint: Endpoint,
        wanted: PlanRequest,
        continued: ContinuedSession | None,
        call: UpstreamCall,
    ) -> GenerationPlan:
        if endpoint.chat:
            if wanted.catalogue is None:
                wanted, continued = _with_functions(wanted, continued)
            payload = wanted.payload
            messages = self._prompts.prompt(payload, continued, payload.get("truncation"), call)
            wanted = replace(wanted, payload=payload | {"messages": messages})
        query = partial(self._query, call)
        return make_plan(endpoint, wanted, self._traits, query)

    def _query(self, call: UpstreamCall, path: str, payload: Mapping[str, object]) -> JsonObject:
        return self._client.query(path, payload, call)

    def _open(self, planned: _PlannedRequest, exchange: RunningExchange, call: UpstreamCall) -> SSEStream:
        """Send the requests of a plan, each when the one before has been answered; or replay an earlier answer."""
        open_stream: OpenStream = partial(self._open_stream, planned, _prompt_source(exchange), call)
        known = self._look_up(planned, exchange, call)
        if known is not None:
            open_stream = known.opener(open_stream)
        plan = planned.plan
        if not plan.stages:
            return open_stream(plan.requests[0])
        return StagedStream(map(open_stream, plan.requests), plan.stages)

    def _open_stream(
        self, planned: _PlannedRequest, source: PromptSource, call: UpstreamCall, request: ChatPayload
    ) -> ChunkStream:
        """Send one request, and return its stream once the model server begins to answer."""
        response = self._send(planned, source, call, request)
        fingerprint = self._system_fingerprint()
        return planned.endpoint.dialect.stream(response, show_progress=planned.show_progress, fingerprint=fingerprint)

    def _body_getter(
        self, planned: _PlannedRequest, exchange: RunningExchange, call: UpstreamCall
    ) -> Callable[[], JsonObject]:
        """Return what gets the response of an engine that is not asked for a stream."""

        def get_body() -> JsonObject:
            return self._send(planned, _prompt_source(exchange), call, planned.plan.requests[0]).json_object()

        known = self._look_up(planned, exchange, call)
        return get_body if known is None else partial(known.body, get_body)

    def _look_up(self, planned: _PlannedRequest, exchange: RunningExchange, call: UpstreamCall) -> CacheLookup | None:
        return None if self._answers is None else self._answers.look_up(planned, exchange, call)

    def _send(
        self, planned: _PlannedRequest, source: PromptSource, call: UpstreamCall, request: ChatPayload
    ) -> UpstreamResponse:
        """Send one request when its turn has come, to a slot that may have its prompt.

        Return its response once the model server begins to answer.
        """
        count = _slots_for(request)
        call.check = partial(self._checker.accepts, planned.endpoint, request)
        request, tokens = self._needs.limited(planned.endpoint, request, self._most_at_once(count))
        with call.trace.span("queue", wait="slot"):
            admission = self._gate.enter(source.owner, count, call, tokens)
        placed = PlacedRequest(request, admission)
        try:
            placed = self._place(placed, source, count)
            if tokens:
                placed = self._make_room(placed, source, admission, tokens)
            call.trace.begin_upstream()
            response = self._client.request(planned.path, placed.request, call)
        except ModelUnavailable as error:
            # Those who have waited here as long as this one has for the model server need not wait for it once more.
            self._gate.give_up(error, self._client.wait_seconds)
            placed.end()
            raise
        except BaseException:
            placed.end()
            raise
        call.answered = True
        placed.note_answer()
        response.at_close(placed.end)
        return response

    def _make_room(
        self, placed: PlacedRequest, source: PromptSource, admission: Admission, tokens: int
    ) -> PlacedRequest:
        """Return a request for which there is room in the cache that the slots share, whatever idle slots have there.

        ``tokens``: what this one may need.
        """
        request = placed.request
        if admission.crowd:
            request, is_large = self._idle_slots.make_room(admission.crowd, tokens, request, source)
            if not is_large:
                admission.note_small()
        self._idle_slots.note(source, request)
        return placed if request is placed.request else replace(placed, request=request)

    def _most_at_once(self, count: int) -> int:
        """Return how many of the choices of a request are generated at the same time."""
        return count if self._client.slots is None else min(count, self._client.slots)

    def _place(self, placed: PlacedRequest, source: PromptSource, count: int) -> PlacedRequest:
        """Return a request so that it reads nothing of another owner's prompts in the model server.

        Somebody else's model server is asked what it is only where there are several owners.
        """
        salts = self._cache_salts
        if salts is not None and not salts.needed:
            return placed
        if salts is None or self._traits.llama_cpp():
            return self._slot_owners.place(source, placed.request, count, placed.end)
        return PlacedRequest(salts.salted(source.owner, placed.request), placed.end)


def _forces_call(payload: ChatPayload) -> bool:
    """Return whether a valid chat demands a call, also one in OpenAI's older form."""
    return isinstance(payload.get("function_call"), dict) or forces_call(payload.get("tool_choice"))


def _with_functions(
    wanted: PlanRequest, continued: ContinuedSession | None
) -> tuple[PlanRequest, ContinuedSession | None]:
    """Return a chat in which functions are all that is called, with the catalogue of its tools.

    Most chats are so already, and have none.
    """
    payload = wanted.payload
    histories = () if continued is None else (continued.leading, continued.history, continued.sent)
    catalogue = chat_catalogue(payload, *histories)
    if catalogue is None:
        return wanted, continued
    if continued is not None:
        leading, history, sent = (catalogue.messages_for_model(messages) for messages in histories)
        continued = replace(continued, leading=leading, history=history, sent=sent)
    return PlanRequest(catalogue.chat_payload(payload), wanted.seed, catalogue), continued


def _prompt_source(exchange: RunningExchange) -> PromptSource:
    """Return whose prompt an exchange brings that has begun, and in which session."""
    opening = exchange.record.exchange
    return PromptSource(opening.owner, opening.session_id or "")


def _slots_for(request: ChatPayload) -> int:
    """Return how many slots a request takes: one for each choice of each prompt."""
    return (request.get("n") or 1) * max(1, len(prompts_of(request.get("prompt"))))
