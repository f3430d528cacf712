"""The plan of a generation: which requests the model server gets, and which stages its responses go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mistral_api.errors import ModelServerFailed
from mistral_api.generation.deprecated_functions import FunctionCallStage, functions_to_tools
from mistral_api.generation.endpoint import COMPLETION, OWN_FIELDS, Endpoint
from mistral_api.generation.forced_tool_calls import (
    ForcedToolChoice,
    filter_allowed_tools,
    forced_tool_choice,
)
from mistral_api.generation.legacy_completion import LegacyCompletionStage
from mistral_api.generation.logprobs import LogprobsStage
from mistral_api.generation.prompt_warming import PromptWarmingStage, only_warms
from mistral_api.generation.refused_field import unknown_token, unknown_token_refusal
from mistral_api.generation.stages import ChoiceIndexStage, ChunkStage
from mistral_api.generation.supervisor_feedback import RANDOM_SEED
from mistral_api.generation.tool_catalogue import ToolCatalogue
from mistral_api.generation.tool_kind_stage import ToolKindStage
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.request_limits import RequestLimits

if TYPE_CHECKING:
    from mistral_api.generation.enforced_schemas import Query

_UINT32 = 2**32
_LOGPROBS = ("logprobs", "top_logprobs", "post_sampling_probs")


@dataclass(frozen=True, slots=True)
class UpstreamTraits:
    """The model server: whether we supervise it, whether it is llama.cpp, its slots, where known, and its limits."""

    supervised: bool
    llama_cpp: Callable[[], bool]
    slots: int | None
    limits: RequestLimits = field(default_factory=RequestLimits)


@dataclass(slots=True)
class GenerationPlan:
    """The requests, sent one after the other, and the stages that their responses go through; most have none.

    ``own_seed``: the seed that we have added, by which the supervisor recognises the slot.
    """

    requests: list[ChatPayload]
    stages: list[ChunkStage] = field(default_factory=list)
    forced: ForcedToolChoice | None = None
    own_seed: int | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the model gives the same answer each time: it always takes the likeliest token, or has a seed."""
        request = self.requests[0]
        seeded = self.own_seed is None and request.get("seed", RANDOM_SEED) not in (RANDOM_SEED, _UINT32 - 1)
        return request.get("temperature") == 0 or seeded

    @property
    def streamed(self) -> bool:
        """Whether the model server is asked for a stream."""
        return bool(self.requests[0].get("stream"))

    def ask_for_stream(self) -> None:
        """Ask the model server for a stream, whatever the client asked for."""
        self.requests = [
            request | {"stream": True, "stream_options": {"include_usage": True}} for request in self.requests
        ]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A valid request. ``seed``: for one that brings none.

    ``catalogue``: where the client knows tools that are no functions. The tools of the payload are its functions then.
    """

    payload: ChatPayload
    seed: int | None = None
    catalogue: ToolCatalogue | None = None


def make_plan(endpoint: Endpoint, wanted: PlanRequest, traits: UpstreamTraits, query: Query) -> GenerationPlan:
    """Return the plan for a request."""
    payload, seed, catalogue = wanted.payload, wanted.seed, wanted.catalogue
    request = traits.limits.known(payload, chat=endpoint.chat)
    request = traits.limits.bounded(request, llama_cpp=endpoint.dialect.llama_cpp)
    if endpoint.chat:
        request = functions_to_tools(filter_allowed_tools(request))
    llama_cpp = traits.supervised or endpoint.dialect.llama_cpp
    upstream = upstream_payload(request, llama_cpp=llama_cpp, seed=seed)
    if llama_cpp and not endpoint.dialect.llama_cpp:
        # Its own dialect counts the tokens in every event. Here its measurements do: see ``upstream.token_tally``.
        upstream["timings_per_token"] = True
    if _has_schemas(upstream) and traits.llama_cpp():
        from mistral_api.generation.enforced_schemas import enforce_schemas  # noqa: PLC0415 - brings 1 MB

        upstream = enforce_schemas(upstream, query, chat=endpoint.chat)
    plan = GenerationPlan([upstream], own_seed=seed)
    if endpoint.chat:
        _plan_chat(plan, traits, query, catalogue)
        _plan_forms(plan, payload, traits, catalogue)
    elif endpoint.upstream_path == COMPLETION.path and traits.llama_cpp():
        _plan_completion(plan, traits, query)
    return plan


def _has_schemas(request: ChatPayload) -> bool:
    """Return whether a request has a field that may hold a JSON schema."""
    return bool(request.get("tools") or request.get("response_format") or request.get("json_schema"))


def _plan_forms(
    plan: GenerationPlan, payload: ChatPayload, traits: UpstreamTraits, catalogue: ToolCatalogue | None
) -> None:
    """Add the stages that give the answer of a chat the form that the client knows."""
    stages: list[ChunkStage] = []
    if catalogue is not None and not catalogue.is_plain:
        stages.append(ToolKindStage(catalogue))
    if payload.get("functions"):
        stages.append(FunctionCallStage())
    if only_warms(payload) and traits.llama_cpp():
        stages.append(PromptWarmingStage())
    if stages:
        plan.stages += stages
        plan.ask_for_stream()


def upstream_payload(payload: ChatPayload, *, llama_cpp: bool, seed: int | None = None) -> ChatPayload:
    """Return the request as the model server gets it: without our own fields, and a stream always with its usage.

    ``llama_cpp``: the model server is known to be llama.cpp. It is asked for a stream whatever the client asked for,
    with reports of progress: see ``upstream.transcript`` and ``upstream.sse`` for the reasons.
    """
    request = omit(payload, OWN_FIELDS)
    if llama_cpp:
        request |= {"stream": True, "return_progress": True}
    if seed is not None:
        request["seed"] = seed
    if request.get("stream"):
        request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
    return request


def _plan_chat(plan: GenerationPlan, traits: UpstreamTraits, query: Query, catalogue: ToolCatalogue | None) -> None:
    request = plan.requests[0]
    several, logprobs = (request.get("n") or 1) > 1, request.get("logprobs")
    forced = forced_tool_choice(request, None if catalogue is None else catalogue.grammars)
    alternatives = request.get("top_logprobs") or 0
    if not (several or logprobs or forced) or not traits.llama_cpp():
        return
    if forced:
        from mistral_api.generation.enforced_schemas import enforce_call  # noqa: PLC0415 - brings 1 MB

        request = enforce_call(request, forced, query)
    if logprobs:
        request = _with_probabilities(request, alternatives)
    counts = _choice_counts(request, traits)
    if several:
        plan.stages.append(ChoiceIndexStage(counts))
    if forced:
        plan.forced = forced
        plan.stages.append(forced.stage())
    elif logprobs:
        plan.stages.append(LogprobsStage(alternatives))
    plan.requests = _divided(request, counts)
    plan.ask_for_stream()


def _plan_completion(plan: GenerationPlan, traits: UpstreamTraits, query: Query) -> None:
    request = plan.requests[0]
    logprobs, silent = request.get("logprobs"), request.get("max_tokens") == 0 and "n_predict" not in request
    echo = _prompt_texts(request["prompt"], query) if request.pop("echo", False) else []
    request = omit(request, ("best_of", "suffix"))  # llama.cpp refuses both, whatever their value
    if logprobs is not None:
        request = _with_probabilities(request, logprobs)
    counts = _choice_counts(request, traits)
    stage = LegacyCompletionStage(logprobs=logprobs, silent=silent, echo=echo, per_prompt=sum(counts))
    plan.stages = [ChoiceIndexStage(counts), stage]
    plan.requests = _divided(request, counts)
    plan.ask_for_stream()


def _with_probabilities(request: ChatPayload, alternatives: int) -> ChatPayload:
    """llama.cpp's own field does what ``logprobs`` does, and also with tools. With 0 it would give none at all."""
    return omit(request, _LOGPROBS) | {"n_probs": max(1, alternatives)}


def _choice_counts(request: ChatPayload, traits: UpstreamTraits) -> list[int]:
    """Return how many choices each request asks for: llama.cpp gives no more at once than it has slots."""
    wanted = request.get("n") or 1
    most = traits.slots or wanted
    return [most] * (wanted // most) + [wanted % most] * (wanted % most > 0)


def _divided(request: ChatPayload, counts: list[int]) -> list[ChatPayload]:
    """Return a request for each count. llama.cpp gives the choices of a request consecutive seeds, and the seeds of the
    next request follow on."""
    if len(counts) == 1:
        return [request]
    requests: list[ChatPayload] = []
    before = 0
    for count in counts:
        seed: ChatPayload = {"seed": (request["seed"] + before) % _UINT32} if request.get("seed", -1) >= 0 else {}
        requests.append(request | {"n": count} | seed)
        before += count
    return requests


def _prompt_texts(prompt: Any, query: Query) -> list[str]:
    """Return the prompts as text. The model server turns tokens into text."""
    if isinstance(prompt, str):
        return [prompt]
    prompts = [prompt] if isinstance(prompt[0], int) else prompt
    try:
        return [each if isinstance(each, str) else _detokenized(each, query) for each in prompts]
    except ModelServerFailed as error:  # llama.cpp answers 500 to a token that it does not know (seen on its server)
        raise unknown_token_refusal(unknown_token({"prompt": prompt}) or "prompt") from error


def _detokenized(tokens: list[int], query: Query) -> str:
    return str(query("/detokenize", {"tokens": tokens})["content"])
