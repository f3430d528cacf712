"""Which fields of a request the model server gets: an allow-list for each kind of request and of engine.

llama.cpp's are those that its server reads: tools/server/server-schema.cpp (in older versions
``params_from_json_cmpl`` in server-task.cpp), ``oaicompat_chat_params_parse`` in server-common.cpp, and
tools/server/README.md. They were compared with the bundled engine, build 11549. A version that does not know one of
them ignores it, so one table holds for all versions. What the request schemas declare is checked; nothing of
llama.cpp's is passed that is not declared there.

These of llama.cpp's fields are left out on purpose:

- ``n_cmpl`` is another name of ``n``, and the choices of a response are counted by that one.
- ``speculative.*`` sets the draft of a slot; newer versions ignore it, older ones take whatever number it has.
- ``preserved_tokens``, ``grammar_type``, ``generation_prompt`` and the tags of ``reasoning_budget_*`` are what
  llama.cpp's chat part tells the rest; ``chat_format`` and the like are refused (:mod:`mistral_api.wire.sampling`).
- ``sse_ping_interval`` and ``reasoning_control`` concern the connection between us and the engine.
"""

from __future__ import annotations

from typing import Final

# OpenAI's, as far as llama.cpp reads them, and llama.cpp's own for every generation.
_LLAMA_CPP = frozenset(
    (
        "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "n", "stop", "seed",
        "presence_penalty", "frequency_penalty", "logit_bias", "user",
        "top_k", "min_p", "typical_p", "top_n_sigma", "repeat_penalty", "repeat_last_n", "mirostat", "mirostat_tau",
        "mirostat_eta", "dynatemp_range", "dynatemp_exponent", "xtc_probability", "xtc_threshold", "dry_multiplier",
        "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "adaptive_target",
        "adaptive_decay", "samplers", "backend_sampling", "min_keep", "n_predict", "n_keep", "n_discard",
        "n_cache_reuse", "n_probs", "post_sampling_probs", "n_indent", "t_max_predict_ms", "id_slot", "cache_prompt",
        "grammar", "json_schema", "ignore_eos", "lora", "return_tokens", "return_progress", "timings_per_token",
        "verbose", "reasoning_format", "reasoning_budget_tokens", "reasoning_budget_message", "parse_tool_calls",
    )
)  # fmt: skip
_CHAT = frozenset(
    (
        "messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "functions",
        "function_call", "response_format", "logprobs", "top_logprobs", "modalities", "reasoning_effort",
        "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "thinking_budget_tokens",
    )
)  # fmt: skip
_COMPLETION = frozenset(("prompt", "suffix", "echo", "logprobs", "best_of"))
_INFILL = frozenset(("input_prefix", "input_suffix", "input_extra"))

# OpenAI's fields for a chat that llama.cpp has no use for (OpenAI's OpenAPI description, CreateChatCompletionRequest).
_OPENAI_CHAT = frozenset(
    (
        "audio", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
        "verbosity", "web_search_options",
    )
)  # fmt: skip
# What other engines take for sampling (vLLM, serving/openai_compatible_server and api/vllm/sampling_params of its
# documentation; SGLang, basic_usage/sampling_params of its own). Not among them: ``chat_template``, a program that the
# engine would run.
_OTHER_ENGINES = frozenset(
    (
        "repetition_penalty", "length_penalty", "min_tokens", "stop_token_ids", "include_stop_str_in_output",
        "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim", "ignore_eos", "bad_words",
        "allowed_token_ids", "prompt_logprobs", "truncate_prompt_tokens", "add_special_tokens", "use_beam_search",
        "early_stopping", "best_of", "echo", "documents", "priority", "regex", "ebnf", "guided_json", "guided_regex",
        "guided_choice", "guided_grammar", "guided_decoding_backend", "structured_outputs", "return_token_ids",
        "return_tokens_as_token_ids", "include_reasoning", "separate_reasoning", "thinking_token_budget",
        "truncation_side", "logprob_token_ids", "min_new_tokens", "structural_tag",
    )
)  # fmt: skip

# What engines take for embeddings besides OpenAI's fields: llama.cpp's ``embd_normalize``, and those of vLLM and of
# Hugging Face's text-embeddings-inference (docs of their OpenAI-compatible servers).
EMBEDDING_FIELDS: Final = frozenset(
    (
        "embd_normalize",
        "add_special_tokens",
        "input_type",
        "normalize",
        "priority",
        "truncate",
        "truncate_prompt_tokens",
    )
)

LLAMA_CPP_CHAT: Final = _LLAMA_CPP | _CHAT
LLAMA_CPP_PROMPT: Final = _LLAMA_CPP | _COMPLETION | _INFILL
ANY_ENGINE_CHAT: Final = LLAMA_CPP_CHAT | _OPENAI_CHAT | _OTHER_ENGINES
ANY_ENGINE_PROMPT: Final = LLAMA_CPP_PROMPT | _OTHER_ENGINES


def known_fields(*, chat: bool, supervised: bool) -> frozenset[str]:
    """Return the names of the fields that are passed on with a chat, or with a prompt.

    A supervised model server is llama.cpp. Behind MODEL_SERVER_URL any engine may stand: it gets whatever one of them
    is known to take.
    """
    if chat:
        return LLAMA_CPP_CHAT if supervised else ANY_ENGINE_CHAT
    return LLAMA_CPP_PROMPT if supervised else ANY_ENGINE_PROMPT
