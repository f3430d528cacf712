"""Switches of llama.cpp's server that the bundled engine does not take, with the reason, and former names.

A ``llama-server`` of the operator's own takes them all. ``tests/unit/test_engine_switches.py`` compares both lists with
llama.cpp's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Switches that are left out for one reason. ``reason`` follows "is left out:" in a sentence."""

    reason: str
    flags: tuple[str, ...]
    variables: tuple[str, ...] = ()


# Also what the supervisor says when it refuses them (``control/engine_switches.py``).
NO_TLS: Final = "it is reached from this machine alone; put TLS before the API (docs/security.md)"

LEFT_OUT: Final = (
    LeftOut(
        "xllamacpp, which the bundled engine is made of, has no parameter for it; a llama-server of your own takes it",
        (
            *("-dev", "--device", "--override-kv", "--control-vector", "--control-vector-scaled"),
            *("--control-vector-layer-range", "-l", "--logit-bias", "--top-nsigma", "--top-n-sigma"),
            *("--dry-sequence-breaker", "--spm-infill", "--log-disable", "--log-file", "--log-jsonl", "--no-log-jsonl"),
            *("--log-colors", "--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps"),
        ),
        (
            *("LLAMA_ARG_DEVICE", "LLAMA_ARG_LOG_FILE", "LLAMA_ARG_LOG_JSONL", "LLAMA_ARG_LOG_COLORS"),
            *("LLAMA_ARG_LOG_PREFIX", "LLAMA_ARG_LOG_TIMESTAMPS"),
        ),
    ),
    LeftOut(
        "the bundled engine is built without RPC; a llama-server of your own that has it takes it",
        ("--rpc",),
        ("LLAMA_ARG_RPC",),
    ),
    LeftOut(
        NO_TLS,
        ("--ssl-key-file", "--ssl-cert-file"),
        ("LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"),
    ),
    LeftOut(
        "a mistake in it ends llama.cpp's process; each request takes one of its own",
        ("--grammar", "--grammar-file", "-j", "--json-schema", "-jf", "--json-schema-file"),
    ),
    LeftOut(
        "the engine downloads nothing; `mistral-api pull` does, and checks what it gets",
        (
            *("-mu", "--model-url", "-dr", "--docker-repo", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"),
            *("-hft", "--hf-token", "-mmu", "--mmproj-url", "-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
            *("--offline", "-cl", "--cache-list", "--embd-gemma-default", "--fim-qwen-1.5b-default"),
            *("--fim-qwen-3b-default", "--fim-qwen-7b-default", "--fim-qwen-7b-spec", "--fim-qwen-14b-spec"),
            *("--fim-qwen-30b-default", "--gpt-oss-20b-default", "--gpt-oss-120b-default"),
            *("--vision-gemma-4b-default", "--vision-gemma-12b-default"),
        ),
        (
            *("LLAMA_ARG_MODEL_URL", "LLAMA_ARG_DOCKER_REPO", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_HF_FILE", "HF_TOKEN"),
            *("LLAMA_ARG_MMPROJ_URL", "LLAMA_ARG_SPEC_DRAFT_HF_REPO", "LLAMA_ARG_OFFLINE"),
        ),
    ),
    LeftOut(
        "whoever reaches the engine could run programs or reach other servers with it",
        (
            *("--tools", "--tools-runtime", "-ag", "--agent", "-no-ag", "--no-agent", "--mcp-servers-config"),
            *("--mcp-servers-json", "--webui-mcp-proxy", "--ui-mcp-proxy", "--no-webui-mcp-proxy", "--no-ui-mcp-proxy"),
        ),
        (
            *("LLAMA_ARG_TOOLS", "LLAMA_ARG_TOOLS_RUNTIME", "LLAMA_ARG_AGENT", "LLAMA_ARG_MCP_SERVERS_CONFIG"),
            *("LLAMA_ARG_MCP_SERVERS_JSON", "LLAMA_ARG_UI_MCP_PROXY"),
        ),
    ),
    LeftOut(
        "one engine serves one model",
        ("--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"),
        (
            *("LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_PRESET", "LLAMA_ARG_MODELS_MAX"),
            "LLAMA_ARG_MODELS_AUTOLOAD",
        ),
    ),
    LeftOut(
        "it is of llama.cpp's commands, and does nothing in a server",
        ("-e", "--escape", "--no-escape", "--completion-bash"),
    ),
    LeftOut("--samplers says the same", ("--sampler-seq", "--sampling-seq")),
    LeftOut(
        "llama.cpp itself has given it up",
        (
            *("-dt", "--defrag-thold", "--draft", "--draft-n", "--draft-max", "--draft-min", "--draft-n-min"),
            *("--spec-ngram-size-n", "--spec-ngram-size-m", "--spec-ngram-min-hits"),
        ),
        ("LLAMA_ARG_DEFRAG_THOLD", "LLAMA_ARG_DRAFT_MAX", "LLAMA_ARG_DRAFT_MIN"),
    ),
)

# What an older llama.cpp called a switch, and what it is called now.
FORMER_FLAGS: Final = {
    "--draft": "--spec-draft-n-max",
    "--draft-n": "--spec-draft-n-max",
    "--draft-max": "--spec-draft-n-max",
    "--draft-min": "--spec-draft-n-min",
    "--draft-n-min": "--spec-draft-n-min",
    "--mlock": "--load-mode mlock",
    "--mmap": "--load-mode mmap",
    "--no-mmap": "--load-mode none",
    "--direct-io": "--load-mode dio",
}
FORMER_VARIABLES: Final = {
    "LLAMA_ARG_DRAFT_MAX": "LLAMA_ARG_SPEC_DRAFT_N_MAX",
    "LLAMA_ARG_DRAFT_MIN": "LLAMA_ARG_SPEC_DRAFT_N_MIN",
    "LLAMA_ARG_DRAFT_P_MIN": "LLAMA_ARG_SPEC_DRAFT_P_MIN",
    "LLAMA_ARG_MODEL_DRAFT": "LLAMA_ARG_SPEC_DRAFT_MODEL",
    "LLAMA_ARG_CACHE_TYPE_K_DRAFT": "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K",
    "LLAMA_ARG_CACHE_TYPE_V_DRAFT": "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V",
    "LLAMA_ARG_CPU_MOE_DRAFT": "LLAMA_ARG_SPEC_DRAFT_CPU_MOE",
    "LLAMA_ARG_N_CPU_MOE_DRAFT": "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
    "LLAMA_ARG_SWA_CHECKPOINTS": "LLAMA_ARG_CTX_CHECKPOINTS",
    "LLAMA_ARG_MLOCK": "LLAMA_ARG_LOAD_MODE=mlock",
    "LLAMA_ARG_MMAP": "LLAMA_ARG_LOAD_MODE=mmap",
    "LLAMA_ARG_NO_MMAP": "LLAMA_ARG_LOAD_MODE=none",
    "LLAMA_ARG_DIO": "LLAMA_ARG_LOAD_MODE=dio",
}
# Former names of LLAMA_ARG_UI, which the supervisor sets besides for older llama-servers: nothing is said of them.
SILENT_VARIABLES: Final = frozenset({"LLAMA_ARG_WEBUI", "LLAMA_ARG_NO_WEBUI"})
