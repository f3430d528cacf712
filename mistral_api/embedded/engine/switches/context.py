"""Switches of the context: how much of it there is, how it is cached and shared, and how far positions reach."""

from __future__ import annotations

from mistral_api.embedded.engine.enumerations import CACHE_TYPE, FLASH_ATTENTION, POOLING, ROPE_SCALING
from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.values import LARGEST_INT, Attributes, number, read_switch, whole, word_of

# llama.cpp's LLAMA_MAX_SEQ: the most sequences in a KV cache.
_MOST_SLOTS = 256


def _read_context(text: str) -> Attributes:
    size = whole(0)(text)
    # As in llama.cpp: where all of the context is asked for, --fit gives up none of it.
    return Attributes({"n_ctx": size} if size else {"n_ctx": 0, "fit_params_min_ctx": -1})


def _read_slots(text: str) -> int:
    if text.strip() == "0":
        raise ValueError(f"a whole number from 1 to {_MOST_SLOTS}, or -1")
    return whole(-1, _MOST_SLOTS)(text)


def _read_rope_scale(text: str) -> float:
    return 1.0 / number(1e-6)(text)


def _read_reranking(text: str) -> Attributes:
    if not read_switch(text):
        return Attributes()
    return Attributes({"embedding": True, "pooling_type": POOLING["rank"]})


CONTEXT = FlagGroup(
    "Context and slots",
    (
        Flag(
            ("-c", "--ctx-size"),
            ("n_ctx", "fit_params_min_ctx"),
            _read_context,
            "tokens of context; 0 as many as the model has been trained for",
            "LLAMA_ARG_CTX_SIZE",
        ),
        Flag(
            ("-np", "--parallel"),
            ("n_parallel",),
            _read_slots,
            "slots: requests that are answered at once; -1 is four with one cache",
            "LLAMA_ARG_N_PARALLEL",
        ),
        Flag(
            ("-b", "--batch-size"),
            ("n_batch",),
            whole(1),
            "tokens of prompts that are handed over at once",
            "LLAMA_ARG_BATCH",
        ),
        Flag(
            ("-ub", "--ubatch-size"),
            ("n_ubatch",),
            whole(1),
            "tokens that are computed at once",
            "LLAMA_ARG_UBATCH",
        ),
        Flag(
            ("-n", "--predict", "--n-predict"),
            ("n_predict",),
            whole(-1),
            "most tokens of an answer; -1 as many as there is room for",
            "LLAMA_ARG_N_PREDICT",
        ),
        Flag(("--keep",), ("n_keep",), whole(-1), "first tokens of a prompt that a shifted context keeps; -1 all"),
        Flag(
            ("-cb", "--cont-batching"),
            ("cont_batching",),
            read_switch,
            "new requests join those under way",
            "LLAMA_ARG_CONT_BATCHING",
            ("-nocb", "--no-cont-batching"),
        ),
        Flag(
            ("--context-shift",),
            ("ctx_shift",),
            read_switch,
            "an answer that fills the context drops its beginning",
            "LLAMA_ARG_CONTEXT_SHIFT",
            ("--no-context-shift",),
        ),
        Flag(
            ("-sps", "--slot-prompt-similarity"),
            ("slot_prompt_similarity",),
            number(0, 1),
            "share of a prompt that a slot must have already to be chosen for it",
        ),
        Flag(
            ("--warmup",),
            ("warmup",),
            read_switch,
            "compute once before the first request",
            off=("--no-warmup",),
        ),
    ),
)

CACHE = FlagGroup(
    "Cache",
    (
        Flag(
            ("-kvu", "--kv-unified"),
            ("kv_unified",),
            read_switch,
            "one KV cache that all slots share",
            "LLAMA_ARG_KV_UNIFIED",
            ("-no-kvu", "--no-kv-unified"),
        ),
        Flag(
            ("--kv-unified-per-slot",),
            ("kv_unified_per_slot",),
            whole(0),
            "most tokens of a slot in the cache that all share",
            "LLAMA_ARG_KV_UNIFIED_PER_SLOT",
        ),
        Flag(
            ("-ctk", "--cache-type-k"),
            ("cache_type_k",),
            word_of(CACHE_TYPE),
            "type of the cache's keys, such as f16 or q8_0",
            "LLAMA_ARG_CACHE_TYPE_K",
        ),
        Flag(
            ("-ctv", "--cache-type-v"),
            ("cache_type_v",),
            word_of(CACHE_TYPE),
            "type of the cache's values, such as f16 or q8_0",
            "LLAMA_ARG_CACHE_TYPE_V",
        ),
        Flag(
            ("-fa", "--flash-attn"),
            ("flash_attn_type",),
            word_of(FLASH_ATTENTION),
            "flash attention: on, off or auto",
            "LLAMA_ARG_FLASH_ATTN",
        ),
        Flag(
            ("--cache-prompt",),
            ("cache_prompt",),
            read_switch,
            "a slot keeps what it has computed for the next request",
            "LLAMA_ARG_CACHE_PROMPT",
            ("--no-cache-prompt",),
        ),
        Flag(
            ("--cache-reuse",),
            ("n_cache_reuse",),
            whole(0),
            "least tokens of a moved passage that is not computed again; 0 computes all",
            "LLAMA_ARG_CACHE_REUSE",
        ),
        Flag(
            ("-cram", "--cache-ram"),
            ("cache_ram_mib",),
            whole(-1),
            "MiB of main memory for prompts that slots have given up; -1 no limit, 0 none",
            "LLAMA_ARG_CACHE_RAM",
        ),
        Flag(
            ("--cache-idle-slots",),
            ("cache_idle_slots",),
            read_switch,
            "idle slots move into that memory when a new request comes",
            "LLAMA_ARG_CACHE_IDLE_SLOTS",
            ("--no-cache-idle-slots",),
        ),
        Flag(
            ("-ctxcp", "--swa-checkpoints", "--ctx-checkpoints"),
            ("n_ctx_checkpoints",),
            whole(0),
            "earlier states that a slot keeps, for models with sliding windows or recurrent layers",
            "LLAMA_ARG_CTX_CHECKPOINTS",
        ),
        Flag(
            ("-cms", "--checkpoint-min-step"),
            ("checkpoint_min_step",),
            whole(0),
            "least tokens between two of them",
            "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT",
        ),
        Flag(
            ("--swa-full",),
            ("swa_full",),
            read_switch,
            "whole cache for sliding windows, so that every prompt can be continued",
            "LLAMA_ARG_SWA_FULL",
        ),
    ),
)

POSITIONS = FlagGroup(
    "Longer contexts than the model's own (RoPE, YaRN)",
    (
        Flag(
            ("--rope-scaling",),
            ("rope_scaling_type",),
            word_of(ROPE_SCALING),
            "none, linear or yarn",
            "LLAMA_ARG_ROPE_SCALING_TYPE",
        ),
        Flag(
            ("--rope-scale",), ("rope_freq_scale",), _read_rope_scale, "how many times longer", "LLAMA_ARG_ROPE_SCALE"
        ),
        Flag(
            ("--rope-freq-base",),
            ("rope_freq_base",),
            number(0),
            "base frequency; 0 the model's own",
            "LLAMA_ARG_ROPE_FREQ_BASE",
        ),
        Flag(
            ("--rope-freq-scale",),
            ("rope_freq_scale",),
            number(0),
            "scale of frequencies; 0 the model's own",
            "LLAMA_ARG_ROPE_FREQ_SCALE",
        ),
        Flag(
            ("--yarn-orig-ctx",),
            ("yarn_orig_ctx",),
            whole(0),
            "YaRN: context that the model has been trained for; 0 what its file says",
            "LLAMA_ARG_YARN_ORIG_CTX",
        ),
        Flag(
            ("--yarn-ext-factor",),
            ("yarn_ext_factor",),
            number(),
            "YaRN: how much is extrapolated; -1 the model's own",
            "LLAMA_ARG_YARN_EXT_FACTOR",
        ),
        Flag(
            ("--yarn-attn-factor",),
            ("yarn_attn_factor",),
            number(),
            "YaRN: scale of the attention",
            "LLAMA_ARG_YARN_ATTN_FACTOR",
        ),
        Flag(
            ("--yarn-beta-slow",),
            ("yarn_beta_slow",),
            number(),
            "YaRN: correction of high dimensions",
            "LLAMA_ARG_YARN_BETA_SLOW",
        ),
        Flag(
            ("--yarn-beta-fast",),
            ("yarn_beta_fast",),
            number(),
            "YaRN: correction of low dimensions",
            "LLAMA_ARG_YARN_BETA_FAST",
        ),
    ),
)

EMBEDDINGS = FlagGroup(
    "Embeddings and ranks",
    (
        Flag(
            ("--embedding", "--embeddings"),
            ("embedding",),
            read_switch,
            "the model gives embeddings, and nothing else",
            "LLAMA_ARG_EMBEDDINGS",
        ),
        Flag(
            ("--rerank", "--reranking"),
            ("embedding", "pooling_type"),
            _read_reranking,
            "the model ranks texts",
            "LLAMA_ARG_RERANKING",
            switch=True,
        ),
        Flag(
            ("--pooling",),
            ("pooling_type",),
            word_of(POOLING),
            "how one vector is made of many: none, mean, cls, last or rank",
            "LLAMA_ARG_POOLING",
        ),
        Flag(
            ("--embd-normalize",),
            ("embd_normalize",),
            whole(-1, LARGEST_INT),
            "length of vectors: -1 as they are, 0 largest value, 1 sum, 2 Euclid's, more is the power",
        ),
    ),
)
