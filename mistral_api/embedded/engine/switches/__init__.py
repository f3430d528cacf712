"""The switches of llama.cpp's server that the bundled engine takes, each declared once, in groups.

Names and meanings are llama.cpp's (``llama-server --help``, common/arg.cpp, tools/server/README.md), those of build
b11549. What is left out, and why: :mod:`mistral_api.embedded.engine.switches.left_out`.
"""

from __future__ import annotations

from typing import Final

from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.switches.context import CACHE, CONTEXT, EMBEDDINGS, POSITIONS
from mistral_api.embedded.engine.switches.generation import SAMPLING, TEMPLATE
from mistral_api.embedded.engine.switches.model import DEVICES, FILES, PROJECTOR
from mistral_api.embedded.engine.switches.processors import PROCESSORS
from mistral_api.embedded.engine.switches.server import ACCESS, ADDRESS, ENDPOINTS, LOG
from mistral_api.embedded.engine.switches.speculation import DRAFT_PROCESSORS, NGRAMS, SPECULATIVE

GROUPS: Final[tuple[FlagGroup, ...]] = (
    *(FILES, PROJECTOR, CONTEXT, CACHE, POSITIONS, DEVICES, PROCESSORS),
    *(TEMPLATE, SAMPLING, SPECULATIVE, NGRAMS, DRAFT_PROCESSORS, EMBEDDINGS),
    *(ADDRESS, ACCESS, ENDPOINTS, LOG),
)
FLAGS: Final[tuple[Flag, ...]] = tuple(flag for group in GROUPS for flag in group.flags)
