"""The tokens of a grammar in lark (lark's lark/grammars/lark.lark)."""

from __future__ import annotations

import re
from typing import NamedTuple

from mistral_api.grammars.errors import InvalidSyntax, Untranslatable

_TOKEN = re.compile(
    r"""
    (?P<blank>    [ \t\f]+ | \\[ ]*\r?\n | (?://|\#)[^\n]* )
  | (?P<line>     (?:\r?\n)+ )
  | (?P<string>   "(?:\\.|[^"\\\n])*"i?(?![a-zA-Z_]) )
  | (?P<pattern>  /(?!/)(?:\\.|[^/\\\n])*/[imslux]* )
  | (?P<name>     [!?]*_*[A-Za-z][A-Za-z0-9_]*(?:-(?!>)[A-Za-z0-9_]+)* )
  | (?P<number>   [+-]?[0-9]+ )
  | (?P<command>  %[a-z_]+ )
  | (?P<mark>     -> | \.\. | [:|()\[\]?*+~.,{}=&@<>] )
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A token: its kind, its text, and the number of the line in which it stands."""

    kind: str
    text: str
    line: int


def read_tokens(text: str) -> list[Token]:
    """Return the tokens of a grammar; an end of a line is one where the next line does not go on with ``|``.

    Raises Untranslatable.
    """
    tokens, position, line, depth = list[Token](), 0, 1, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            rest = text[position:].split("\n", maxsplit=1)[0]
            if rest.startswith('"') and rest.count('"') == 1:
                raise InvalidSyntax(f"the string that begins with '{rest[:10]}' in line {line} is not closed")
            raise Untranslatable(f"'{rest[:10]}' in line {line} is not supported")
        kind = found.lastgroup or ""
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(found[0], 0) if kind == "mark" else 0
        if kind != "blank" and not (kind == "line" and depth > 0):
            _add(tokens, Token(kind, found[0], line))
        line += found[0].count("\n")
        position = found.end()
    return [*tokens, Token("line", "", line)]


def _add(tokens: list[Token], token: Token) -> None:
    if token.text == "|" and tokens and tokens[-1].kind == "line":
        tokens.pop()
    if token.kind != "line" or (tokens and tokens[-1].kind != "line"):
        tokens.append(token)
