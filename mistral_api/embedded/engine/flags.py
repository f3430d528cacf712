"""The engine's options, read from its command line and its environment.

A flag wins over its variable. A flag that is not declared in :mod:`mistral_api.embedded.engine.switches` is refused by
name; a variable that is not declared there is reported and has no effect. Where several flags give values of one list,
such as adapters, it has all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from mistral_api.embedded.engine.command_line import CommandLine, read_command_line
from mistral_api.embedded.engine.conflicts import refuse_conflicts
from mistral_api.embedded.engine.flag import BadFlag, Flag
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.values import Attributes, FlagValue
from mistral_api.embedded.engine.variables import why_without_effect


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The engine's options, from the command line and the environment.

    ``commands``: what to print instead of serving, such as ``--version``. ``values``: by attribute of xllamacpp's
    CommonParams. ``warnings``: sentences about variables that have no effect.
    """

    commands: Set[str]
    values: Mapping[str, FlagValue]
    warnings: Sequence[str]


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> EngineOptions:
    """Read the flags, then the variables where there is no flag. Raises BadFlag."""
    line = read_command_line(arguments)
    values: dict[str, FlagValue] = {}
    for flag in FLAGS:
        for text in line.texts.get(flag.name, ()):
            _merge(values, _read(flag, text, flag.name))
    by_flag = frozenset(values)
    for flag in FLAGS:
        variable = _variable(flag, environment)
        if variable is not None and flag.name not in line.texts:
            more = _read(flag, variable[1], variable[0])
            _merge(values, {name: value for name, value in more.items() if name not in by_flag or _grows(value)})
    refuse_conflicts(values)
    warnings = [*_overridden(line, environment), *_without_effect(environment)]
    return EngineOptions(line.commands, values, warnings)


def _grows(value: FlagValue) -> bool:
    """Whether values of this kind are added to others."""
    return isinstance(value, list | dict | frozenset)


def _merge(values: dict[str, FlagValue], more: Mapping[str, FlagValue]) -> None:
    """Add values: lists, sets of processors and objects grow, others are replaced."""
    for name, new in more.items():
        values[name] = _joined(values[name], new) if name in values else new


def _joined(old: FlagValue, new: FlagValue) -> FlagValue:
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    if isinstance(old, dict) and isinstance(new, dict):
        return old | new
    if isinstance(old, frozenset) and isinstance(new, frozenset):
        return old | new
    return new


def _variable(flag: Flag, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the name and the text of a flag's variable. One that switches off wins, whatever it holds."""
    negative = flag.negative_variable
    if negative is not None and negative in environment:
        return negative, "off"
    text = environment.get(flag.variable)
    return None if text is None else (flag.variable, text)


def _read(flag: Flag, text: str, source: str) -> Mapping[str, FlagValue]:
    try:
        value = flag.read(text)
    except ValueError as error:
        raise BadFlag(f"argument {source}: '{text}' is not allowed; it takes {error}") from error
    return value if isinstance(value, Attributes) else dict.fromkeys(flag.attributes, value)


def _overridden(line: CommandLine, environment: Mapping[str, str]) -> list[str]:
    """Return a sentence about each variable that says something else than its flag."""
    return [
        f"{variable[0]} has no effect: {flag.name} is given"
        for flag in FLAGS
        if flag.name in line.texts and (variable := _variable(flag, environment)) is not None
        if [variable[1]] != line.texts[flag.name]
    ]


def _without_effect(environment: Iterable[str]) -> list[str]:
    reasons = {name: why_without_effect(name) for name in sorted(environment)}
    return [f"{name} has no effect on the bundled engine: {why}" for name, why in reasons.items() if why is not None]
