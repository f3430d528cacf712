"""Switches of generation: the chat template, reasoning, and what a request gets that says nothing of its own."""

from __future__ import annotations

import json

from mistral_api.embedded.engine.enumerations import REASONING_FORMAT
from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.values import (
    Attributes,
    number,
    read_file,
    read_one,
    read_samplers,
    read_seed,
    read_switch,
    read_template_values,
    read_text,
    whole,
    word_of,
)

_TEMPLATE_VALUES = "default_template_kwargs"


def _read_reasoning(text: str) -> Attributes:
    if text == "auto":
        return Attributes()
    if text not in ("on", "off"):
        raise ValueError("on, off or auto")
    return Attributes(
        {
            "enable_reasoning": int(text == "on"),
            _TEMPLATE_VALUES: {"enable_thinking": json.dumps(text == "on")},
        }
    )


def _read_effort(text: str) -> dict[str, str]:
    return {} if text == "default" else {"reasoning_effort": json.dumps(text)}


def _read_preserving(text: str) -> Attributes:
    return Attributes(
        {
            "preserve_reasoning_specified": True,
            _TEMPLATE_VALUES: {"preserve_reasoning": json.dumps(read_switch(text))},
        }
    )


def _read_temperature(text: str) -> float:
    return max(number()(text), 0.0)


TEMPLATE = FlagGroup(
    "Chat template and reasoning",
    (
        Flag(
            ("--jinja",),
            ("use_jinja",),
            read_switch,
            "the model's own template; off takes llama.cpp's known ones",
            "LLAMA_ARG_JINJA",
            ("--no-jinja",),
        ),
        Flag(
            ("--chat-template",),
            ("chat_template",),
            read_text,
            "another template, or the name of one that llama.cpp knows",
            "LLAMA_ARG_CHAT_TEMPLATE",
        ),
        Flag(
            ("--chat-template-file",),
            ("chat_template",),
            read_file,
            "file of another template",
            "LLAMA_ARG_CHAT_TEMPLATE_FILE",
        ),
        Flag(
            ("--chat-template-kwargs",),
            (_TEMPLATE_VALUES,),
            read_template_values,
            "values for the template, a JSON object",
            "LLAMA_ARG_CHAT_TEMPLATE_KWARGS",
        ),
        Flag(
            ("--prefill-assistant",),
            ("prefill_assistant",),
            read_switch,
            "an answer continues a last message of the assistant's",
            "LLAMA_ARG_PREFILL_ASSISTANT",
            ("--no-prefill-assistant",),
        ),
        Flag(
            ("--skip-chat-parsing",),
            ("force_pure_content_parser",),
            read_switch,
            "tool calls and reasoning stay in the text",
            "LLAMA_ARG_SKIP_CHAT_PARSING",
            ("--no-skip-chat-parsing",),
        ),
        Flag(
            ("--reasoning-format",),
            ("reasoning_format",),
            word_of(REASONING_FORMAT),
            "where reasoning stands: none, deepseek, deepseek-legacy or auto",
            "LLAMA_ARG_THINK",
        ),
        Flag(
            ("-rea", "--reasoning"),
            ("enable_reasoning", _TEMPLATE_VALUES),
            _read_reasoning,
            "the model reasons: on, off or auto",
            "LLAMA_ARG_REASONING",
        ),
        Flag(
            ("--reasoning-effort",),
            (_TEMPLATE_VALUES,),
            _read_effort,
            "how much it reasons, such as low or high, where its template knows that",
            "LLAMA_ARG_REASONING_EFFORT",
        ),
        Flag(
            ("--reasoning-budget",),
            ("sampling.reasoning_budget_tokens",),
            whole(-1),
            "most tokens of reasoning; -1 no limit",
            "LLAMA_ARG_THINK_BUDGET",
        ),
        Flag(
            ("--reasoning-budget-message",),
            ("sampling.reasoning_budget_message",),
            read_text,
            "what is written where the limit ends the reasoning",
            "LLAMA_ARG_THINK_BUDGET_MESSAGE",
        ),
        Flag(
            ("--reasoning-preserve",),
            ("preserve_reasoning_specified", _TEMPLATE_VALUES),
            _read_preserving,
            "earlier messages keep their reasoning",
            "LLAMA_ARG_REASONING_PRESERVE",
            ("--no-reasoning-preserve",),
            switch=True,
        ),
    ),
)

SAMPLING = FlagGroup(
    "Defaults for requests",
    (
        Flag(("-s", "--seed"), ("sampling.seed",), read_seed, "seed; -1 another for each answer"),
        Flag(("--samplers",), ("sampling.samplers",), read_samplers, "samplers in their order, with semicolons"),
        Flag(
            ("--temp", "--temperature"), ("sampling.temp",), _read_temperature, "temperature", "LLAMA_ARG_TEMPERATURE"
        ),
        Flag(("--top-k",), ("sampling.top_k",), whole(), "likeliest tokens to choose from; 0 all", "LLAMA_ARG_TOP_K"),
        Flag(("--top-p",), ("sampling.top_p",), number(0), "tokens that make up this probability", "LLAMA_ARG_TOP_P"),
        Flag(("--min-p",), ("sampling.min_p",), number(0), "least share of the likeliest token's", "LLAMA_ARG_MIN_P"),
        Flag(("--xtc-probability",), ("sampling.xtc_probability",), number(0), "how often XTC drops likely tokens"),
        Flag(("--xtc-threshold",), ("sampling.xtc_threshold",), number(0), "from which probability it does"),
        Flag(("--typical", "--typical-p"), ("sampling.typ_p",), number(0), "locally typical sampling; 1 is off"),
        Flag(
            ("--repeat-last-n",),
            ("sampling.penalty_last_n",),
            whole(0),
            "tokens in which repetition is looked for; 0 none",
        ),
        Flag(
            ("--repeat-penalty",),
            ("sampling.penalty_repeat",),
            number(0.001),
            "penalty of repeated tokens; 1 is none",
            "LLAMA_ARG_REPEAT_PENALTY",
        ),
        Flag(
            ("--presence-penalty",),
            ("sampling.penalty_present",),
            number(),
            "penalty of tokens that have occurred",
            "LLAMA_ARG_PRESENCE_PENALTY",
        ),
        Flag(
            ("--frequency-penalty",),
            ("sampling.penalty_freq",),
            number(),
            "penalty for each time that they have",
            "LLAMA_ARG_FREQUENCY_PENALTY",
        ),
        Flag(("--dry-multiplier",), ("sampling.dry_multiplier",), number(), "strength of DRY; 0 is off"),
        Flag(("--dry-base",), ("sampling.dry_base",), number(1), "DRY: base of the penalty"),
        Flag(("--dry-allowed-length",), ("sampling.dry_allowed_length",), whole(0), "DRY: repetition that is free"),
        Flag(("--dry-penalty-last-n",), ("sampling.dry_penalty_last_n",), whole(0), "DRY: tokens that it looks at"),
        Flag(("--adaptive-target",), ("sampling.adaptive_target",), number(-1, 1), "adaptive-p: probability to aim at"),
        Flag(("--adaptive-decay",), ("sampling.adaptive_decay",), number(0, 0.99), "adaptive-p: how slowly it adapts"),
        Flag(("--dynatemp-range",), ("sampling.dynatemp_range",), number(), "range of a temperature that varies"),
        Flag(("--dynatemp-exp",), ("sampling.dynatemp_exponent",), number(), "exponent of that temperature"),
        Flag(("--mirostat",), ("sampling.mirostat",), whole(0, 2), "Mirostat: 0 off, 1 or 2"),
        Flag(("--mirostat-lr",), ("sampling.mirostat_eta",), number(), "Mirostat: learning rate"),
        Flag(("--mirostat-ent",), ("sampling.mirostat_tau",), number(), "Mirostat: entropy to aim at"),
        Flag(
            ("-bs", "--backend-sampling"),
            ("sampling.backend_sampling",),
            read_switch,
            "the card samples",
            "LLAMA_ARG_BACKEND_SAMPLING",
        ),
        Flag(("--ignore-eos",), ("sampling.ignore_eos",), read_switch, "answers do not end by themselves"),
        Flag(("-r", "--reverse-prompt"), ("antiprompt",), read_one, "text that ends an answer"),
        Flag(("-sp", "--special"), ("special",), read_switch, "special tokens are shown in answers"),
    ),
)
