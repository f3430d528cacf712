"""One switch of llama.cpp's server: its flags, its variable, the reader of its text and the parameters that it sets."""

from __future__ import annotations

from dataclasses import dataclass

from mistral_api.embedded.engine.values import Reader, read_opposite, read_switch

LLAMA_PREFIX = "LLAMA_ARG_"
_NEGATIVE_PREFIX = "LLAMA_ARG_NO_"


class BadFlag(ValueError):
    """A flag or its value is not known; the message names the flag."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One switch.

    ``names``: its flags, the one that llama.cpp recommends last. ``attributes``: paths in xllamacpp's CommonParams, all
    of which get the value; where the reader returns values by attribute, those that it may set. ``read``: the reader of
    its text. ``meaning``: what it does, in a few words. ``llama_variable``: its variable in llama.cpp, if it has one.
    ``off``: the flags that switch it off. ``switch``: whether it stands alone on the command line.
    """

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    read: Reader
    meaning: str
    llama_variable: str | None = None
    off: tuple[str, ...] = ()
    switch: bool | None = None

    @property
    def name(self) -> str:
        """The flag that messages name."""
        return self.names[-1]

    @property
    def stands_alone(self) -> bool:
        """Whether it needs no value on the command line."""
        return self.read in (read_switch, read_opposite) if self.switch is None else self.switch

    @property
    def variable(self) -> str:
        """Its environment variable: llama.cpp's, or where it has none the name of the flag with the same prefix."""
        return self.llama_variable or LLAMA_PREFIX + self.name.lstrip("-").upper().replace("-", "_")

    @property
    def negative_variable(self) -> str | None:
        """The variable whose mere presence switches it off, as llama.cpp has it (common/arg.cpp)."""
        if not self.off or not self.variable.startswith(LLAMA_PREFIX):
            return None
        return self.variable.replace(LLAMA_PREFIX, _NEGATIVE_PREFIX, 1)


@dataclass(frozen=True, slots=True)
class FlagGroup:
    """Switches about one noun."""

    title: str
    flags: tuple[Flag, ...]
