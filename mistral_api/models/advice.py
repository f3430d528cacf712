"""The lines of ``.env`` that serve a model which has just been fetched."""

from __future__ import annotations

import re

from mistral_api.models.memory import CONTEXT, layers_by_card
from mistral_api.models.pulling import PullResult
from mistral_api.models.sources import Source

_PLAIN = re.compile(r"[\w./:\\+@-]+")


def env_lines(source: Source, pulled: PullResult) -> list[str]:
    """MODEL_PATH and MODEL_ALIAS, and what is known of the layers that fit a card."""
    lines = [f"MODEL_PATH={_quoted(str(pulled.path.resolve()))}", f"MODEL_ALIAS={_quoted(source.alias)}"]
    if source.architecture is None:
        return lines
    layers = layers_by_card(source.architecture, pulled.size)
    cards = ", ".join(f"{number} on a card of {card} GB" for card, number in layers.items())
    return [
        *lines,
        "# PARALLEL requests share the context: one at a time has all of it.",
        f"CONTEXT_SIZE={CONTEXT}",
        "PARALLEL=1",
        f"# GPU_LAYERS that fit: {cards}",
        "GPU_LAYERS=auto",
    ]


def _quoted(value: str) -> str:
    """As python-dotenv reads it back."""
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
