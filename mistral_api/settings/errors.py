"""The error of a setting that is not allowed."""

from __future__ import annotations


class SettingError(ValueError):
    """Settings are not allowed, or ``.env`` cannot be read: a sentence for the operator about each, a line each."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences
