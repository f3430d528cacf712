"""The words of llama.cpp's enumerations, each beside its member in xllamacpp.

The words are those of ``llama-server --help`` (common/arg.cpp). A word becomes a :class:`Member`, which names the
native value without loading llama.cpp; :func:`mistral_api.embedded.engine.parameters.common_params` looks it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple


class Member(NamedTuple):
    """A member of an enumeration of xllamacpp, by name."""

    enumeration: str
    name: str


@dataclass(frozen=True, slots=True)
class Enumeration:
    """An enumeration: its name in xllamacpp, what its members' names begin with, and the word of each member."""

    name: str
    prefix: str
    members: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """The words, in the order in which llama.cpp lists them."""
        return list(self.members)

    def __getitem__(self, word: str) -> Member:
        """Return the member of a word. Raises KeyError."""
        return Member(self.name, self.prefix + self.members[word])


def _same_words(*words: str) -> dict[str, str]:
    """Return the members whose names are the words themselves, in capital letters."""
    return {word: word.upper().replace("-", "_") for word in words}


CACHE_TYPE: Final = Enumeration(
    "ggml_type", "GGML_TYPE_", _same_words("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
)
FLASH_ATTENTION: Final = Enumeration(
    "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
)
POOLING: Final = Enumeration(
    "llama_pooling_type", "LLAMA_POOLING_TYPE_", _same_words("none", "mean", "cls", "last", "rank")
)
ROPE_SCALING: Final = Enumeration(
    "llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", _same_words("none", "linear", "yarn")
)
SPLIT_MODE: Final = Enumeration("llama_split_mode", "LLAMA_SPLIT_MODE_", _same_words("none", "layer", "row", "tensor"))
LOAD_MODE: Final = Enumeration(
    "llama_load_mode",
    "LLAMA_LOAD_MODE_",
    {**_same_words("auto", "none", "mmap", "mlock"), "mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"},
)
LAZY_MODE: Final = Enumeration("llama_lazy_mode", "LLAMA_LAZY_MODE_", _same_words("on", "auto", "off"))
NUMA: Final = Enumeration("ggml_numa_strategy", "GGML_NUMA_STRATEGY_", _same_words("distribute", "isolate", "numactl"))
# Given as numbers, as llama.cpp does.
PRIORITY: Final = Enumeration(
    "ggml_sched_priority",
    "GGML_SCHED_PRIO_",
    {"-1": "LOW", "0": "NORMAL", "1": "MEDIUM", "2": "HIGH", "3": "REALTIME"},
)
REASONING_FORMAT: Final = Enumeration(
    "common_reasoning_format",
    "COMMON_REASONING_FORMAT_",
    _same_words("none", "deepseek", "deepseek-legacy", "auto"),
)
SPECULATION: Final = Enumeration(
    "common_speculative_type",
    "COMMON_SPECULATIVE_TYPE_",
    _same_words(
        *("none", "draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark"),
        *("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"),
    ),
)

ENUMERATIONS: Final = (
    *(CACHE_TYPE, FLASH_ATTENTION, POOLING, ROPE_SCALING, SPLIT_MODE, LOAD_MODE, LAZY_MODE, NUMA, PRIORITY),
    *(REASONING_FORMAT, SPECULATION),
)
