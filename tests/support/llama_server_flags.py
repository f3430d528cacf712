"""The names of llama-server's flags and variables, taken from its help: names only.

``llama-server --help | python -m tests.support.llama_server_flags``, or for the build inside the bundled engine
``python -m tests.support.llama_cpp_parser --help | python -m tests.support.llama_server_flags``.
"""

from __future__ import annotations

import re
import sys

_FLAG = re.compile(r"-{1,2}[a-zA-Z][\w.-]*")
_VARIABLE = re.compile(r"\(env: (\w+)\)")


def names_in_help(text: str) -> list[str]:
    """Return a line for each switch: its flags, and its variable if it has one, separated by spaces."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("-") and _FLAG.match(line):
            lines.append(" ".join(_leading_flags(line)))
        elif (found := _VARIABLE.search(line)) and lines:
            lines[-1] += f" {found[1]}"
    return lines


def _leading_flags(line: str) -> list[str]:
    """Return the flags before the value and the description."""
    flags = []
    for part in re.split(r", +", line):
        word = part.split(" ", 1)[0]
        if not _FLAG.fullmatch(word):
            break
        flags.append(word)
        if word != part.strip():
            break
    return flags


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in names_in_help(sys.stdin.read()))
