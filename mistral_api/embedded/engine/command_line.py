"""The engine's command line: its words as llama-server reads them, and the text of ``--help``.

As in llama.cpp a flag stands alone or takes the word after it, whatever that begins with, and names are not shortened.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mistral_api.embedded.engine.flag import BadFlag, Flag
from mistral_api.embedded.engine.switches import FLAGS, GROUPS
from mistral_api.embedded.engine.variables import hint_of_flag

_USAGE = """usage: engine -m MODEL [flags]

Serve a model as llama.cpp's server does, until SIGTERM or SIGINT.

Each flag has a variable too, in brackets; the flag wins.
"""
_COMMANDS = {
    ("-h", "--help", "--usage"): "print this and exit",
    ("--version",): "print the engine's version and exit",
    ("--list-devices",): "print what it computes on beside the CPU, and exit",
}
_WIDTH, _MARGIN = 110, 6


@dataclass(slots=True)
class CommandLine:
    """What the words say: texts of flags, by the flags' names, and the commands that print something and end."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Read the words of a command line. Raises BadFlag."""
    read, words = CommandLine(), iter(arguments)
    for given in words:
        # llama.cpp takes underscores for the dashes of a long flag.
        word = given.replace("_", "-") if given.startswith("--") else given
        if word in _COMMAND_OF:
            read.commands.add(_COMMAND_OF[word])
        elif word in _FLAG_OF:
            flag, text = _FLAG_OF[word]
            _add(read, flag, word, text if text is not None else _value(words, flag))
        else:
            raise BadFlag(f"unrecognized argument: {given}{hint_of_flag(word)}")
    return read


def _value(words: Iterator[str], flag: Flag) -> str:
    try:
        return next(words)
    except StopIteration:
        raise BadFlag(f"argument {'/'.join(flag.names)}: expected one argument") from None


def _add(read: CommandLine, flag: Flag, word: str, text: str) -> None:
    texts = read.texts.setdefault(flag.name, [])
    if flag.off and texts and texts[-1] != text:
        raise BadFlag(f"argument {word}: not allowed with argument {flag.name if word in flag.off else flag.off[-1]}")
    texts.append(text)


def _flags_by_word() -> dict[str, tuple[Flag, str | None]]:
    """Return each word's flag, and the text that the word stands for unless a value follows."""
    on = {name: (flag, "on" if flag.stands_alone else None) for flag in FLAGS for name in flag.names}
    return on | {name: (flag, "off") for flag in FLAGS for name in flag.off}


_FLAG_OF = _flags_by_word()
_COMMAND_OF = {name: names[-1] for names in _COMMANDS for name in names}


def help_text() -> str:
    """Return all flags in groups, with what they do and their variables."""
    lines = [_USAGE, "Commands:", *(line for names in _COMMANDS for line in _entry(names, "", _COMMANDS[names]))]
    for group in GROUPS:
        lines += ["", f"{group.title}:"]
        for flag in group.flags:
            value = "" if flag.stands_alone else " VALUE"
            lines += _entry((*flag.names, *flag.off), value, f"{flag.meaning} [{flag.variable}]")
    return "\n".join(lines)


def _entry(names: Sequence[str], value: str, meaning: str) -> list[str]:
    indent = " " * _MARGIN
    return [
        f"  {', '.join(names)}{value}",
        *textwrap.wrap(meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent),
    ]
