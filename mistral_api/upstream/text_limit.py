"""Text that is longer than the context of the model could ever hold, refused before the model server is asked.

Seen on llama.cpp's server: a message of 19 MiB takes it 65 to 82 s, and nearly a gigabyte of memory, to find out. So
text is measured here, in bytes. No token stands for more bytes than the longest one of the vocabulary
(:mod:`mistral_api.model_files.vocabulary`), so a text cannot fit that has more bytes than the context has tokens, times
that.

Nothing is refused that would fit, as long as all of the text reaches the model. A chat template may leave out text:
what a model has thought, tools, and white space around a message. So the exact bound holds for prompts, and for
messages of users without that space. All text together may be :data:`LEFT_OUT_FACTOR` times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.errors import InvalidRequest
from mistral_api.upstream.cancellation import UpstreamCall

# llama.cpp reads a text of this length in a tenth of a second: shorter ones are its own to judge.
FREE_BYTES = 64 << 10
LEFT_OUT_FACTOR = 8


@dataclass(frozen=True, slots=True)
class TextSize:
    """Bytes of text: ``kept`` surely reach the model, ``total`` is with those that may be left out.

    ``param``: the field that they are in, as a path.
    """

    kept: int
    total: int
    param: str


class TextLimit:
    """Refuses what is too long for one model server. Safe to use from many threads."""

    def __init__(self, context: Callable[[UpstreamCall], int | None], longest_token: Callable[[], int]) -> None:
        """``context`` returns the tokens of one request with its answer, None where nobody knows; ``longest_token``
        returns how many bytes of text a token stands for at most."""
        self._context = context
        self._longest_token = longest_token

    def most_bytes(self, call: UpstreamCall) -> int | None:
        """Return how many bytes of text may fit; None where the context is not known. Raises ModelUnavailable."""
        context = self._context(call)
        return None if context is None else context * self._longest_token()

    def require_fit(self, size: TextSize, call: UpstreamCall) -> None:
        """Raise InvalidRequest (``context_length_exceeded``) for text that cannot fit, and ModelUnavailable.

        The model server is asked for its context where that is not known yet, and the text is not short.
        """
        if size.total <= FREE_BYTES:
            return
        most = self.most_bytes(call)
        if most is None:
            return
        if size.kept > most:
            raise _too_long(size.kept, most, size.param)
        if size.total > most * LEFT_OUT_FACTOR:
            raise _too_long(size.total, most * LEFT_OUT_FACTOR, size.param)


def text_bytes(text: str) -> int:
    """Return the length of a text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _too_long(size: int, most: int, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"This model's maximum context length is exceeded: '{param}' has {size} bytes of text, and no more than {most} "
        f"bytes could ever fit. Please reduce the length of the {param.partition('[')[0]}.",
        code="context_length_exceeded",
        param=param,
    )
