"""What the model server is asked, and what becomes of its answer on the way to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mistral_api.errors import InvalidRequest, ModelServerFailed
from mistral_api.generation.deprecated_functions import FunctionCallStage, functions_to_tools
from mistral_api.generation.endpoint import COMPLETION, Endpoint, upstream_payload
from mistral_api.generation.forced_tool_calls import (
    ForcedToolChoice,
    ToolCallStage,
    filter_allowed_tools,
    forced_tool_choice,
)
from mistral_api.generation.logprobs import LegacyCompletionStage, LogprobsStage
from mistral_api.generation.stages import ChoiceIndexStage, ChunkStage

_UINT32 = 2**32
_LOGPROBS = ("logprobs", "top_logprobs", "post_sampling_probs")
Ask = Callable[[str, dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class UpstreamTraits:
    """The model server: whether it is supervised by us, whether it is llama.cpp, and its slots, where known."""

    ours: bool
    llama_cpp: Callable[[], bool]
    slots: int | None


@dataclass(slots=True)
class GenerationPlan:
    """The requests, made one after the other, and the stages that their answers go through; most have none."""

    requests: list[dict[str, Any]]
    stages: list[ChunkStage] = field(default_factory=list)
    forced: ForcedToolChoice | None = None

    @property
    def streamed(self) -> bool:
        """Whether the model server is asked for a stream."""
        return bool(self.requests[0].get("stream"))


def make_plan(
    endpoint: Endpoint, payload: dict[str, Any], engine: UpstreamTraits, seed: int | None, ask: Ask
) -> GenerationPlan:
    """The plan for a valid request. ``ask`` puts a question to the model server, and decodes its answer."""
    asked = functions_to_tools(filter_allowed_tools(payload)) if endpoint.chat else payload
    ours = engine.ours or endpoint.dialect.llama_cpp
    plan = GenerationPlan([upstream_payload(asked, ours=ours, seed=seed)])
    if endpoint.chat:
        _plan_chat(plan, engine)
        if payload.get("functions"):
            plan.stages.append(FunctionCallStage())
            plan.requests = list(map(_streamed, plan.requests))
    elif endpoint is COMPLETION and engine.llama_cpp():
        _plan_completion(plan, engine, ask)
    return plan


def _plan_chat(plan: GenerationPlan, engine: UpstreamTraits) -> None:
    sent = plan.requests[0]
    several, logprobs, forced = (sent.get("n") or 1) > 1, sent.get("logprobs"), forced_tool_choice(sent)
    alternatives = sent.get("top_logprobs") or 0
    if not (several or logprobs or forced) or not engine.llama_cpp():
        return
    if forced:
        sent = forced.constrain(sent)
    if logprobs:
        sent = _with_probabilities(sent, alternatives)
    counts = _counts(sent, engine)
    if several:
        plan.stages.append(ChoiceIndexStage(counts))
    if forced:
        plan.forced = forced
        plan.stages.append(ToolCallStage(forced.only, forced.finish_reason))
    elif logprobs:
        plan.stages.append(LogprobsStage(alternatives))
    plan.requests = _divided(_streamed(sent), counts)


def _plan_completion(plan: GenerationPlan, engine: UpstreamTraits, ask: Ask) -> None:
    sent = plan.requests[0]
    logprobs, silent = sent.get("logprobs"), sent.get("max_tokens") == 0 and "n_predict" not in sent
    echo = _prompts(sent["prompt"], ask) if sent.pop("echo", False) else []
    for name in ("best_of", "suffix"):  # llama.cpp refuses both, whatever they say
        sent.pop(name, None)
    if logprobs is not None:
        sent = _with_probabilities(sent, logprobs)
    counts = _counts(sent, engine)
    stage = LegacyCompletionStage(logprobs=logprobs, silent=silent, echo=echo, per_prompt=sum(counts))
    plan.stages = [ChoiceIndexStage(counts), stage]
    plan.requests = _divided(_streamed(sent), counts)


def _streamed(sent: dict[str, Any]) -> dict[str, Any]:
    return sent | {"stream": True, "stream_options": {"include_usage": True}}


def _with_probabilities(sent: dict[str, Any], alternatives: int) -> dict[str, Any]:
    """llama.cpp's own field does what ``logprobs`` does, and also with tools; with 0 it would give none at all."""
    kept = {name: value for name, value in sent.items() if name not in _LOGPROBS}
    return kept | {"n_probs": max(1, alternatives)}


def _counts(sent: dict[str, Any], engine: UpstreamTraits) -> list[int]:
    """How many choices each request asks for: llama.cpp gives no more at once than it has slots."""
    wanted = sent.get("n") or 1
    most = engine.slots or wanted
    return [most] * (wanted // most) + [wanted % most] * (wanted % most > 0)


def _divided(sent: dict[str, Any], counts: list[int]) -> list[dict[str, Any]]:
    """A request for each count. llama.cpp seeds the choices of a request one after the other: so do we go on."""
    if len(counts) == 1:
        return [sent]
    requests, before = [], 0
    for count in counts:
        seed = {"seed": (sent["seed"] + before) % _UINT32} if sent.get("seed", -1) >= 0 else {}
        requests.append(sent | {"n": count} | seed)
        before += count
    return requests


def _prompts(prompt: Any, ask: Ask) -> list[str]:
    """The prompts as text; tokens are put into words by the model server."""
    if isinstance(prompt, str):
        return [prompt]
    listed = [prompt] if isinstance(prompt[0], int) else prompt
    return [each if isinstance(each, str) else _in_words(each, ask) for each in listed]


def _in_words(tokens: list[int], ask: Ask) -> str:
    """What tokens say. llama.cpp answers 500 to one that it does not know (seen on its server)."""
    try:
        return str(ask("/detokenize", {"tokens": tokens})["content"])
    except ModelServerFailed as error:
        text = "Invalid 'prompt': not all of these are tokens of the model served."
        raise InvalidRequest(text, code="invalid_value", param="prompt") from error
