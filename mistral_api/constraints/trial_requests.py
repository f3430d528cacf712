"""What llama.cpp is asked in a trial of a constraint."""

from __future__ import annotations

from typing import Any, cast

from mistral_api.constraints.trial_process import Trial, TrialRequest
from mistral_api.wire.constraint_places import Constraint

_TRIAL_TOKENS = 8
# Enough to come to the costly part of a schema that is met once, and behind it.
_ONCE = {"n_predict": 32, "max_tokens": 32}
# No sampler but this one: every token of the vocabulary stays possible. The bias makes a byte likely that no grammar
# takes (llama.cpp's ``llama_grammar_apply_impl``), so that each token is chosen a second time, from all of them.
_SAMPLING = {
    "samplers": ["temperature"],
    "temperature": 1.0,
    "cache_prompt": False,
    "n_predict": _TRIAL_TOKENS,
    "max_tokens": _TRIAL_TOKENS,
    "logit_bias": [["\0", 100]],
}


def trial_of(constraint: Constraint) -> Trial:
    """Return the trial of a constraint: the whole, its costliest parts, and the other forms that llama.cpp gives it."""
    if constraint.is_grammar:
        grammars = [constraint.value, *constraint.suspect_grammars()]
        needed = [_completion(seed, grammar=grammar) for seed, grammar in enumerate(grammars)]
        return Trial(needed, [_completion(len(needed), grammar=constraint.value)])
    schema = cast("dict[str, Any]", constraint.value)
    parts = [_chat(0, part.schema, **(_ONCE if part.once else {})) for part in constraint.suspect_schemas()]
    further = [_completion(1, json_schema=schema), _tool_call(2, schema), _chat(3, schema)]
    return Trial([_chat(0, schema), *parts], further)


def _completion(seed: int, **constraint: object) -> TrialRequest:
    return "completions", {**_SAMPLING, "seed": seed, "prompt": "x", **constraint}


def _chat(seed: int, schema: dict[str, Any], **more: object) -> TrialRequest:
    """llama.cpp makes a grammar in GBNF of this form, while some builds make one of llguidance of ``json_schema``."""
    messages = [{"role": "user", "content": "x"}]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return "chat_completions", {**_SAMPLING, "seed": seed, "messages": messages, "response_format": form, **more}


def _tool_call(seed: int, schema: dict[str, Any]) -> TrialRequest:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    messages = [{"role": "user", "content": "x"}]
    body = {**_SAMPLING, "seed": seed, "messages": messages, "tools": [tool], "tool_choice": "required"}
    return "chat_completions", body
