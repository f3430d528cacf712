"""What of a model server's output may be written down: its own words, and none of a request.

llama.cpp quotes requests in its log: a grammar that it cannot parse, the types of a JSON schema, the names of samplers,
and with a higher verbosity the prompt itself. While a model is loaded there are no requests, so all of it is kept until
the server is ready. From then on a line is kept whole where it begins as llama.cpp's lines do and has no other words
than those listed here, or where it is what a crash prints. Of any other line only the beginning is kept: time, level,
component and function, with the words that tell a lack of memory. A line without such a beginning is left out, since it
may be the rest of what was quoted.

Sources: llama.cpp, common/log.cpp (the beginnings of lines), tools/server/server-context.cpp (its words),
src/llama-grammar.cpp, common/json-schema-to-grammar.cpp and common/sampling.cpp (what is quoted), ggml/src/ggml.c and
ggml/src/ggml-cuda/ggml-cuda.cu (what is printed before a crash).
"""

from __future__ import annotations

import re

from mistral_api.supervisor.memory_shortage import shortage_words

LEFT_OUT = "(left out: it may quote a request)"
# The longest line that a crash prints, such as a failed assertion.
MOST_CRASH_CHARACTERS = 300

# ``0.01.529.068 I srv          init: ``. Older builds print neither time nor level.
_STAMP = r"\d+\.\d\d\.\d{3}\.\d{3} [A-Z] +"
_COMPONENT = r"(?:srv|slot|que|res|cmn) +[\w~<>()]{1,16}:"
_BEGINNING = re.compile(rf"{_STAMP}(?:{_COMPONENT}|[a-z]+(?:_[a-z]+)+:)?|{_COMPONENT}")
_TIMING = re.compile(r" *(?:prompt eval|eval|total) time =")
_TOKEN = re.compile(r"\w[\w.]*")
_NUMBER = re.compile(r"\d[\d.]*(?:e\d*)?|0x[0-9a-f]+")
# The words of lines about slots, caches, times and failures. None of these lines quotes anything but numbers.
_WORD_LIST = """
a again all already another are at available batch batch.n_tokens been by cache cached caches cancel checkpoint
checkpoints child children clearing completed context created data decode decoding does done draft drafted end
erased error eval exceeds f_keep f_sim_best failed find for free generated get getting grammar graphs has have http
i id id_slot id_task idle in increasing inf init initialize is is_child it kv launch lcp limit limits listening
llama_decode loaded loading lru main max memory memory_seq_rm mib min model ms n_batch n_cached n_ctx n_ctx_slot
n_decoded n_discard n_keep n_past n_prompt_tokens n_remaining n_slots n_swa n_tokens need new no not of on parse per
pos_max pos_min position prefix processing progress prompt prompts rate reached ready release released request
restored ret retrying reused s samplers save saved saving second selected sequence server shift shutting sim_best
similarity size slot slots smaller space starting state stop stopped system t_last task task.n_tokens tasks the
thold threshold time to token tokens total truncated try trying update updating using with
"""
_WORDS = frozenset(_WORD_LIST.split())
_CRASH = re.compile(
    r"\S+\.(?:c|cc|cpp|h|hpp|cu|cuh|m|metal|comp):\d+: "
    r"|(?:CUDA|ROCm|HIP|MUSA|SYCL|Vulkan) error: |  current device: \d+, in function |  (?:cuda|hip|mu)\w+\("
    r"|terminate called |libc\+\+abi: |#\d+ +0x[0-9a-f]+ |\S+\([^()]*\) ?\[0x[0-9a-f]+\]$|Memory access fault by GPU "
    r"|Fatal Python error: |Traceback \(most|  File \"[^\"]+\", line \d+"
    r"|(?:Segmentation fault|Aborted|Killed|Bus error|Illegal instruction)\b"
)
# What llama.cpp prints of each request and probe from verbosity 4 on, and below not (``SRV_TRC`` and ``SLT_TRC`` in
# tools/server/server-context.cpp, seen with build 11549), and the further lines of the samplers' parameters.
_TRACE = re.compile(
    r"(?:\d+\.\d\d\.\d{3}\.\d{3} I +)?(?:srv +(?:server_strea|load|update|get_availabl):"
    r"|srv +update_slots: all slots are idle$|slot +init_sampler:|slot +process_sing:.*\| saving idle slot"
    r"|slot +operator\(\):.*\| (?:new prompt,|cached n_tokens)|slot +get_availabl:.*\| +- skipping"
    r"|slot +launch_slot_:.*\| sampler )"
    r"|\t(?:repeat_last_n|dry_multiplier|top_k|mirostat) = "
)


def is_trace(line: str) -> bool:
    """Whether a line only traces what a request or a probe does, and llama.cpp does not print it by default."""
    return _TRACE.match(line) is not None


def kept_part(line: str) -> str:
    """Return what of a line may be written down; an empty text for a line of which nothing may."""
    beginning = _BEGINNING.match(line)
    if beginning is None:
        return _kept_without_beginning(line)
    if _has_known_words_only(line[beginning.end() :]):
        return line
    return f"{beginning[0].rstrip()} {shortage_words(line)}".rstrip() + f" {LEFT_OUT}"


def _kept_without_beginning(line: str) -> str:
    if _TIMING.match(line) and _has_known_words_only(line):
        return line
    beginning = line[:MOST_CRASH_CHARACTERS]
    if _CRASH.match(beginning):
        return beginning
    return shortage_words(line)


def _has_known_words_only(text: str) -> bool:
    tokens = (found[0].lower() for found in _TOKEN.finditer(text))
    return all(token in _WORDS or _NUMBER.fullmatch(token) for token in tokens)
