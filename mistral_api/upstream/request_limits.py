"""What of a request reaches the model server: the fields that it is known to take, and an answer of so many tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from mistral_api.payload_types import only
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.engine_fields import known_fields

# The fields that limit an answer. llama.cpp takes the first of them that a request has.
OUTPUT_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")


def _unknown() -> None:
    """No limit is known."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of one model server.

    ``supervised``: it is ours, so llama.cpp. ``pass_unknown``: fields that it is not known to take are passed on too
    (PASS_UNKNOWN_FIELDS). ``most_output`` returns how many tokens an answer may have, None where nobody knows.
    """

    supervised: bool = True
    pass_unknown: bool = False
    most_output: Callable[[], int | None] = _unknown

    def known(self, payload: ChatPayload, *, chat: bool) -> ChatPayload:
        """Return a request with the fields alone that the model server is known to take."""
        if self.pass_unknown:
            return payload
        return only(payload, known_fields(chat=chat, supervised=self.supervised))

    def bounded(self, payload: ChatPayload, *, llama_cpp: bool) -> ChatPayload:
        """Return a request for an answer of no more tokens than one may have.

        A request that names no number, or -1, gets so many. ``llama_cpp``: the request is of llama.cpp's own dialect.
        """
        most = self.most_output()
        if most is None:
            return payload
        fields = cast("dict[str, Any]", payload)
        named = {name: fields[name] for name in OUTPUT_LIMITS if name in fields}
        bounded = {name: most for name, wanted in named.items() if not 0 <= wanted <= most}
        if not named:
            bounded = {"n_predict" if llama_cpp else "max_tokens": most}
        return cast("ChatPayload", {**payload, **bounded}) if bounded else payload
