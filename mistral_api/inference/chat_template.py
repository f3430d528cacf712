"""What the loaded model's chat template demands of a list of messages, found out by trying it.

llama.cpp applies the template without generating anything (``POST /apply-template``, tools/server/README.md), so a
few small lists tell which of them it takes. Its ``chat_template_caps`` (``GET /props``) say whether the template
reads a system message at all; where it does not, llama.cpp puts the first one into whatever message follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Messages = list[dict[str, Any]]

_SYSTEM, _USER, _ASSISTANT = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good day."},
)
PLAIN: Messages = [_USER]


@dataclass(frozen=True, slots=True)
class TemplateRules:
    """What a template takes: ``system`` one system message at the beginning, ``systems`` any number of them anywhere;
    ``alternates``: it refuses two turns of one role after another."""

    system: bool = True
    systems: bool = True
    alternates: bool = False

    @property
    def none(self) -> bool:
        """Whether it takes everything."""
        return self.system and self.systems and not self.alternates


ANYTHING = TemplateRules()


def read_template_rules(takes: Callable[[Messages], bool], caps: Mapping[str, Any]) -> TemplateRules:
    """The rules of a template that takes :data:`PLAIN`. ``takes`` says whether it takes a list, ``caps`` are
    llama.cpp's ``chat_template_caps``."""
    # Each list breaks one rule and no other.
    system = caps.get("supports_system_role") is not False and takes([_SYSTEM, _USER])
    alternates = not (takes([_USER, _USER]) and takes([_USER, _ASSISTANT, _ASSISTANT, _USER]))
    systems = system and takes([_SYSTEM, _SYSTEM, _USER]) and takes([_USER, _ASSISTANT, _SYSTEM, _USER])
    return TemplateRules(system, systems, alternates)
