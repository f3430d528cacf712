"""Ollama's ``template`` of ``/api/generate``: a prompt in place of the one that the model's own template makes.

Templates are Go's (``docs/template.mdx`` in ollama/ollama). Of them those are filled in that have one turn: the
variables ``.System``, ``.Prompt`` and ``.Response``, and ``if``, ``else if``, ``else`` and ``end`` around them. ``{{-``
and ``-}}`` trim the white space beside them. What follows ``.Response`` is for the model to write, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

_ACTION = re.compile(r"\{\{([^{}]*)\}\}")
_VARIABLE = re.compile(r"[.$]+(System|Prompt|Response|First|Suffix)")
_IF, _ELSE_IF = "if ", "else if "
_RESPONSE: Final = "Response"
MOST_LEVELS: Final = 32


class UnsupportedTemplate(ValueError):
    """The template has something that is not filled in here. The message is half a sentence."""


class _Branch:
    """An ``if`` that is open. ``taken``: whether one of its branches has been written; ``writes``: this one is."""

    def __init__(self, *, outer: bool, condition: bool) -> None:
        self._outer = outer
        self.writes = outer and condition
        self._taken = condition

    def otherwise(self, *, condition: bool) -> None:
        self.writes = self._outer and condition and not self._taken
        self._taken = self._taken or condition


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Return the prompt. ``values`` has ``System`` and ``Prompt``. Raises UnsupportedTemplate."""
    written: list[str] = []
    branches: list[_Branch] = []
    for text, words in _pieces(template):
        writes = all(branch.writes for branch in branches)
        if writes:
            written.append(text)
        if words is None or _opens_or_closes(words, branches, values):
            continue
        name = _variable(words)
        if writes and name == _RESPONSE:
            return "".join(written)
        if writes:
            written.append(values.get(name, ""))
    if branches:
        raise UnsupportedTemplate("has an 'if' without an 'end'")
    return "".join(written)


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """Yield each text with the words of the action that follows it; None after the last text."""
    position, trims = 0, False
    for found in _ACTION.finditer(template):
        text, action = _plain(template[position : found.start()], trims), found[1]
        yield text.rstrip() if action.startswith("-") else text, action.strip("-").strip()
        position, trims = found.end(), action.endswith("-")
    yield _plain(template[position:], trims), None


def _plain(text: str, trims: bool) -> str:
    if "{{" in text:
        raise UnsupportedTemplate("has an action that does not end")
    return text.lstrip() if trims else text


def _opens_or_closes(words: str, branches: list[_Branch], values: Mapping[str, str]) -> bool:
    """Follow an ``if``, an ``else`` or an ``end``. Return whether the action was one, or a comment."""
    if words.startswith(_IF):
        if len(branches) == MOST_LEVELS:
            raise UnsupportedTemplate("is nested too deeply")
        outer = all(branch.writes for branch in branches)
        branches.append(_Branch(outer=outer, condition=_is_true(words.removeprefix(_IF), values)))
    elif words == "else" or words.startswith(_ELSE_IF):
        condition = words == "else" or _is_true(words.removeprefix(_ELSE_IF), values)
        _innermost(branches).otherwise(condition=condition)
    elif words == "end":
        _innermost(branches)
        branches.pop()
    else:
        return words.startswith("/*")
    return True


def _innermost(branches: list[_Branch]) -> _Branch:
    if not branches:
        raise UnsupportedTemplate("has an 'end' or 'else' without an 'if'")
    return branches[-1]


def _is_true(words: str, values: Mapping[str, str]) -> bool:
    return bool(values.get(_variable(words.strip()), ""))


def _variable(words: str) -> str:
    found = _VARIABLE.fullmatch(words)
    if found is None:
        raise UnsupportedTemplate(f"has '{words[:40]}', which is not filled in here")
    return found[1]
