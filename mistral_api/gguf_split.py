"""The names of a model that is split into several GGUF files: NAME-00001-of-00003.gguf and so on.

llama.cpp's ``gguf-split`` gives them, and by them llama.cpp finds the other parts beside the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Split:
    """What a part's name says: the model's own name, and how many parts there are."""

    stem: str
    count: int

    def names(self) -> list[str]:
        """Every part, the one to give llama.cpp first."""
        return [f"{self.stem}-{number:05}-of-{self.count:05}.gguf" for number in range(1, self.count + 1)]


def split_of(name: str) -> Split | None:
    """Read the name of a part, folders before it included; None for that of a model in one file."""
    found = _NAME.fullmatch(name)
    return Split(found["stem"], int(found["count"])) if found else None
