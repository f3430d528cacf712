"""Switches of speculative decoding: a small model, a second head or earlier text guesses, and the model checks.

llama.cpp's names: docs/speculative.md and ``llama-server --help``.
"""

from __future__ import annotations

from mistral_api.embedded.engine.enumerations import CACHE_TYPE, SPECULATION, Member
from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.switches.model import (
    read_experts_on_cpu,
    read_layers_with_experts_on_cpu,
    read_overrides,
)
from mistral_api.embedded.engine.values import (
    number,
    numbers,
    read_gguf,
    read_gpu_layers,
    read_mask,
    read_path,
    read_processors,
    read_raised_priority,
    read_speculation,
    read_switch,
    read_text,
    read_threads,
    whole,
    word_of,
)

_DRAFT, _OVERRIDES = "speculative.draft", "speculative.draft.tensor_buft_overrides"


def _read_default(text: str) -> list[Member]:
    return [SPECULATION["ngram-mod"]] if read_switch(text) else []


def _read_sampling(text: str) -> bool:
    if text not in ("greedy", "probabilistic"):
        raise ValueError("greedy or probabilistic")
    return text == "probabilistic"


SPECULATIVE = FlagGroup(
    "Speculative decoding",
    (
        Flag(
            ("--spec-type",),
            ("speculative.types",),
            read_speculation,
            f"what guesses, with commas: {', '.join(SPECULATION.words)}",
            "LLAMA_ARG_SPEC_TYPE",
        ),
        Flag(("--spec-default",), ("speculative.types",), _read_default, "llama.cpp's choice: ngram-mod", switch=True),
        Flag(
            ("-md", "--model-draft", "--spec-draft-model"),
            (f"{_DRAFT}.mparams.path",),
            read_gguf,
            "file of the small model (GGUF)",
            "LLAMA_ARG_SPEC_DRAFT_MODEL",
        ),
        Flag(
            ("--spec-draft-n-max",),
            (f"{_DRAFT}.n_max",),
            whole(0),
            "most tokens that are guessed at once",
            "LLAMA_ARG_SPEC_DRAFT_N_MAX",
        ),
        Flag(
            ("--spec-draft-n-min",),
            (f"{_DRAFT}.n_min",),
            whole(0),
            "fewest tokens that are worth checking",
            "LLAMA_ARG_SPEC_DRAFT_N_MIN",
        ),
        Flag(
            ("--draft-p-min", "--spec-draft-p-min"),
            (f"{_DRAFT}.p_min",),
            number(0, 1),
            "probability below which the small model stops guessing",
            "LLAMA_ARG_SPEC_DRAFT_P_MIN",
        ),
        Flag(
            ("--draft-p-split", "--spec-draft-p-split"),
            (f"{_DRAFT}.p_split",),
            number(0, 1),
            "probability from which it follows a second guess",
            "LLAMA_ARG_SPEC_DRAFT_P_SPLIT",
        ),
        Flag(
            ("--spec-draft-sampling",),
            (f"{_DRAFT}.probabilistic",),
            _read_sampling,
            "how it guesses: greedy or probabilistic",
            "LLAMA_ARG_SPEC_DRAFT_SAMPLING",
        ),
        Flag(
            ("--spec-draft-backend-sampling",),
            (f"{_DRAFT}.backend_sampling",),
            read_switch,
            "the card samples its guesses",
            "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING",
            ("--no-spec-draft-backend-sampling",),
        ),
        Flag(
            ("-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"),
            (f"{_DRAFT}.n_gpu_layers",),
            read_gpu_layers,
            "its layers on the card: a number, auto or all",
            "LLAMA_ARG_N_GPU_LAYERS_DRAFT",
        ),
        Flag(
            ("-devd", "--device-draft", "--spec-draft-device"),
            (f"{_DRAFT}.devices",),
            read_text,
            "devices that it computes on, with commas, or none",
        ),
        Flag(
            ("-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"),
            (f"{_DRAFT}.cache_type_k",),
            word_of(CACHE_TYPE),
            "type of its cache's keys",
            "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K",
        ),
        Flag(
            ("-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"),
            (f"{_DRAFT}.cache_type_v",),
            word_of(CACHE_TYPE),
            "type of its cache's values",
            "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V",
        ),
        Flag(
            ("-otd", "--override-tensor-draft", "--spec-draft-override-tensor"),
            (_OVERRIDES,),
            read_overrides,
            "where its tensors stand, PATTERN=BUFFER with commas",
        ),
        Flag(
            ("-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"),
            (_OVERRIDES,),
            read_experts_on_cpu,
            "all its experts stay in main memory",
            "LLAMA_ARG_SPEC_DRAFT_CPU_MOE",
            switch=True,
        ),
        Flag(
            ("-ncmoed", "--n-cpu-moe-draft", "--spec-draft-ncmoe", "--spec-draft-n-cpu-moe"),
            (_OVERRIDES,),
            read_layers_with_experts_on_cpu,
            "the experts of so many of its layers stay in main memory",
            "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
        ),
        Flag(
            ("-lcs", "--lookup-cache-static"),
            ("speculative.ngram_cache.lookup_cache_static",),
            read_path,
            "ngram-cache: file of word sequences that stays as it is",
        ),
        Flag(
            ("-lcd", "--lookup-cache-dynamic"),
            ("speculative.ngram_cache.lookup_cache_dynamic",),
            read_text,
            "ngram-cache: file of word sequences that grows",
        ),
        Flag(
            ("--spec-synth-len",),
            ("speculative.synth_len",),
            number(1),
            "for measurements: pretend that so many guesses are right",
            "LLAMA_ARG_SPEC_SYNTH_LEN",
        ),
        Flag(
            ("--spec-synth-rates",),
            ("speculative.synth_rates",),
            numbers(0),
            "for measurements: pretend that guesses are right so often",
            "LLAMA_ARG_SPEC_SYNTH_RATES",
        ),
    ),
)


def _of_processors(ending: str, attribute: str, subject: str) -> tuple[Flag, ...]:
    """Return the switches of the processors that the small model computes on."""
    return (
        Flag(
            (f"-C{'bd' if ending else 'd'}", f"--cpu-mask{ending}-draft", f"--spec-draft-cpu-mask{ending}"),
            (f"{attribute}.cpumask",),
            read_mask,
            f"processors for {subject}, as bits: 0xf",
        ),
        Flag(
            (f"--cpu-strict{ending}-draft", f"--spec-draft-cpu-strict{ending}"),
            (f"{attribute}.strict_cpu",),
            whole(0, 1),
            f"each thread has its processor, for {subject}: 0 or 1",
        ),
        Flag(
            (f"--prio{ending}-draft", f"--spec-draft-prio{ending}"),
            (f"{attribute}.priority",),
            read_raised_priority,
            f"priority of the threads for {subject}",
        ),
        Flag(
            (f"--poll{ending}-draft", f"--spec-draft-poll{ending}"),
            (f"{attribute}.poll",),
            whole(0, 100),
            f"how long threads look for work, for {subject}",
        ),
    )


DRAFT_PROCESSORS = FlagGroup(
    "Processors of the small model",
    (
        Flag(
            ("-td", "--threads-draft", "--spec-draft-threads"),
            (f"{_DRAFT}.cpuparams.n_threads",),
            read_threads,
            "threads of the small model",
        ),
        Flag(
            ("-tbd", "--threads-batch-draft", "--spec-draft-threads-batch"),
            (f"{_DRAFT}.cpuparams_batch.n_threads",),
            read_threads,
            "threads of the small model for prompts",
        ),
        *_of_processors("", f"{_DRAFT}.cpuparams", "the small model"),
        Flag(
            ("-Crd", "--cpu-range-draft", "--spec-draft-cpu-range"),
            (f"{_DRAFT}.cpuparams.cpumask",),
            read_processors,
            "processors for the small model: 0-3",
        ),
        *_of_processors("-batch", f"{_DRAFT}.cpuparams_batch", "its prompts"),
    ),
)


def _of_ngrams(kind: str, attribute: str) -> tuple[Flag, ...]:
    """Return the switches of a kind of guessing from word sequences (n-grams) in the text so far."""
    return (
        Flag(
            (f"--spec-{kind}-size-n",),
            (f"speculative.{attribute}.size_n",),
            whole(1, 1024),
            f"{kind}: tokens that are looked up",
        ),
        Flag(
            (f"--spec-{kind}-size-m",),
            (f"speculative.{attribute}.size_m",),
            whole(1, 1024),
            f"{kind}: tokens that are guessed",
        ),
        Flag(
            (f"--spec-{kind}-min-hits",),
            (f"speculative.{attribute}.min_hits",),
            whole(1, 65535),
            f"{kind}: how often they must have occurred",
        ),
    )


NGRAMS = FlagGroup(
    "Guesses from earlier text (n-grams)",
    (
        Flag(
            ("--spec-ngram-mod-n-match",),
            ("speculative.ngram_mod.n_match",),
            whole(1, 1024),
            "ngram-mod: tokens that are looked up",
        ),
        Flag(
            ("--spec-ngram-mod-n-min",),
            ("speculative.ngram_mod.n_min",),
            whole(0, 1024),
            "ngram-mod: fewest tokens that are guessed",
        ),
        Flag(
            ("--spec-ngram-mod-n-max",),
            ("speculative.ngram_mod.n_max",),
            whole(0, 1024),
            "ngram-mod: most tokens that are guessed",
        ),
        *_of_ngrams("ngram-simple", "ngram_simple"),
        *_of_ngrams("ngram-map-k", "ngram_map_k"),
        *_of_ngrams("ngram-map-k4v", "ngram_map_k4v"),
    ),
)
