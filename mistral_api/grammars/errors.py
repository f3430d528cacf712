"""The exceptions of this package."""

from __future__ import annotations


class Untranslatable(ValueError):
    """llama.cpp cannot be made to enforce a regular expression or a grammar exactly.

    ``reason`` says why in plain words and names the part at fault, to be put behind a field's name:
    ``the backreference '\\1' is not supported``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooSlow(Untranslatable):
    """The time of a translation is over. Another time it may be enough, so nobody remembers this."""

    def __init__(self) -> None:
        super().__init__("it takes too long to translate")


class InvalidSyntax(Untranslatable):
    """What was to be translated is no regular expression, or no grammar, to anybody."""
