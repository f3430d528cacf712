"""What the bundled engine makes of a variable: whether it has one, and what is said of one that has no effect."""

from __future__ import annotations

import difflib
from typing import Final

from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.switches.left_out import FORMER_FLAGS, FORMER_VARIABLES, LEFT_OUT, SILENT_VARIABLES

# How alike two names must be (difflib's ratio) for one to be meant by the other.
_ALIKE = 0.8

VARIABLES: Final = frozenset(
    variable for flag in FLAGS for variable in (flag.variable, flag.negative_variable) if variable is not None
)
_REASONS: Final = {name: group.reason for group in LEFT_OUT for name in (*group.flags, *group.variables)}


def why_without_effect(variable: str) -> str | None:
    """Return why a variable has no effect on the bundled engine, or None where it has one or is none of llama.cpp's."""
    if variable in VARIABLES | SILENT_VARIABLES or not variable.startswith(LLAMA_PREFIX):
        return None
    if variable in FORMER_VARIABLES:
        return f"it is called {FORMER_VARIABLES[variable]} now"
    if variable in _REASONS:
        return _REASONS[variable]
    nearest = difflib.get_close_matches(variable, VARIABLES, 1, _ALIKE)
    return "no switch has this name" + (f" (did you mean {nearest[0]}?)" if nearest else "")


def knows_variable(variable: str) -> bool:
    """Whether llama.cpp has a switch of this name, or had one."""
    return variable in VARIABLES | SILENT_VARIABLES or variable in FORMER_VARIABLES or variable in _REASONS


def hint_of_flag(flag: str) -> str:
    """Return what is said beside a flag that is not taken: why not, or which one may be meant."""
    if flag in FORMER_FLAGS:
        return f" (it is called {FORMER_FLAGS[flag]} now)"
    if flag in _REASONS:
        return f" ({_REASONS[flag]})"
    names = [name for each in FLAGS for name in (*each.names, *each.off)]
    nearest = difflib.get_close_matches(flag, names, 1, _ALIKE) if flag.startswith("--") else []
    return f" (did you mean {nearest[0]}?)" if nearest else ""
