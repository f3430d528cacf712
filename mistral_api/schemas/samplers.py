"""llama.cpp's samplers, and the fields of its own that end or stall it where a client sets them.

Seen on its server: a parser (``chat_parser``) that names itself, or a trigger (``grammar_triggers``) of a type that
does not exist, ends the process, ``chat_format`` of an unknown number is a 500, and the sampler ``infill``, which
compares every two tokens it is given, takes minutes for a whole vocabulary while nobody else is answered.
"""

from __future__ import annotations

from typing import Any

from mistral_api.schemas.fields import CheckedField, check_array, check_text
from mistral_api.schemas.issues import refuse

MOST_SAMPLERS = 100
MOST_INFILL_TOKENS = 2000


class Samplers(CheckedField):
    """The names of the samplers, in their order."""

    def check(self, value: Any) -> None:
        """Refuse what is no array of strings, and ``infill`` before anything has left it fewer tokens."""
        check_array(value, 0, MOST_SAMPLERS)
        for index, name in enumerate(value):
            check_text(name, path=f"[{index}]")
            if name == "infill" and "top_k" not in value[:index]:
                refuse("invalid_value", "Invalid '{param}': 'infill' is only allowed after 'top_k'.", f"[{index}]")


def refuse_slow_infill(data: dict[str, Any]) -> None:
    """Refuse the sampler ``infill`` with a ``top_k`` that leaves it too many tokens."""
    if "infill" in data.get("samplers", ()) and not 0 < data.get("top_k", 1) <= MOST_INFILL_TOKENS:
        text = f"Invalid '{{param}}': expected 1 to {MOST_INFILL_TOKENS} together with the sampler 'infill'."
        refuse("invalid_value", text, field="top_k")


class ServerOwnedField(CheckedField):
    """A field that llama.cpp fills in itself, between its chat part and the rest."""

    def check(self, value: Any) -> None:
        """Refuse any value."""
        refuse("unsupported_value", "Unsupported parameter: '{param}' is for the model server's own use.")
