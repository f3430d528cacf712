"""Values as a grammar in GBNF, for what a schema for llama.cpp's converter cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from mistral_api.constraints.schemas.deadline import Deadline
from mistral_api.constraints.schemas.number_grammar import integer_range, number_range
from mistral_api.constraints.schemas.usage import shared_definitions
from mistral_api.constraints.schemas.values import (
    Fields,
    IntegerRange,
    Items,
    Literals,
    NumberRange,
    Program,
    Reference,
    Simple,
    Subset,
    Text,
    Union,
    Value,
)
from mistral_api.grammars.patterns import json_string_rules

_HEXADECIMAL = "[0-9a-fA-F]"
# Each needs those that it names. Escapes are those that characters need, so that none is half a surrogate pair.
_RULES = {
    "space": r'| " " | "\n"{1,2} [ \t]{0,20}',
    "null": '"null"',
    "boolean": '"true" | "false"',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "char": rf'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u00" ([01] {_HEXADECIMAL} | "7" [fF]))',
    "string": r'"\"" char* "\""',
    "array": '"[" space (any ("," space any)*)? space "]"',
    "object": '"{" space (string space ":" space any ("," space string space ":" space any)*)? space "}"',
    "any": "object | array | string | number | boolean | null",
}
_NAME = re.compile("[a-z]+")


def value_grammar(program: Program, deadline: Deadline) -> str:
    """Return the grammar of a program, whose root is its value as JSON.

    Raises SchemaRefused where there is no time for all its patterns.
    """
    writer = _Writer(program, deadline)
    writer.rules["root"] = writer.expression(program.root)
    for number in writer.shared:
        writer.rules[_rule(number)] = writer.expression(program.definitions[number])
    return "".join(f"{name} ::= {text}\n" for name, text in writer.with_basic_rules().items())


def _rule(number: int) -> str:
    return f"d{number}"


class _Writer:
    def __init__(self, program: Program, deadline: Deadline) -> None:
        self._program = program
        self._deadline = deadline
        self.shared = shared_definitions(program)
        self._is_shared = set(self.shared)
        self.rules: dict[str, str] = {}
        self._basic: set[str] = set()
        # The rules for what may follow a property, by their text, and those of patterns.
        self._known: dict[str, str] = {}
        self._patterns: dict[Text, str] = {}
        self._writers: dict[type[Value], Callable[[Any], str]] = {
            Reference: self._reference,
            Simple: self._simple,
            Literals: _literals,
            IntegerRange: _integers,
            NumberRange: _numbers,
            Text: self._text,
            Union: self._union,
            Items: self._items,
            Subset: self._subset,
            Fields: self._fields,
        }

    def with_basic_rules(self) -> dict[str, str]:
        """Return the rules with the basic ones that they need."""
        self._use("space")
        todo, needed = list(self._basic), set[str]()
        while todo:
            name = todo.pop()
            if name not in needed:
                needed.add(name)
                todo += [each for each in _NAME.findall(_without_text(_RULES[name])) if each in _RULES]
        return self.rules | {name: text for name, text in _RULES.items() if name in needed}

    def _use(self, name: str) -> str:
        self._basic.add(name)
        return name

    def _add(self, text: str) -> str:
        """Add a rule, and return its name."""
        name = f"r{len(self.rules)}"
        self.rules[name] = text
        return name

    def expression(self, value: Value) -> str:
        """Return what matches a value, as it may stand in a sequence."""
        return self._writers[type(value)](value)

    def _reference(self, value: Reference) -> str:
        if value.number in self._is_shared:
            return _rule(value.number)
        return self.expression(self._program.definitions[value.number])

    def _simple(self, value: Simple) -> str:
        return self._use(value.kind)

    def _union(self, value: Union) -> str:
        return _any_of([self.expression(each) for each in value.choices])

    def _text(self, value: Text) -> str:
        if value.pattern:
            return rf'"\"" {self._pattern(value)} "\""'
        return rf'"\"" {_repeated(self._use("char"), value.low, value.high)} "\""'

    def _pattern(self, value: Text) -> str:
        """Return the name of a rule for what a pattern matches."""
        if value not in self._patterns:
            self._patterns[value] = self._add_pattern(value)
        return self._patterns[value]

    def _add_pattern(self, value: Text) -> str:
        self._deadline.check()
        name = f"t{len(self.rules)}"
        rules = json_string_rules(name, value.pattern, min_length=value.low, max_length=value.high)
        for line in rules.splitlines():
            rule, _, text = line.partition(" ::= ")
            self.rules[rule] = text
        return name

    def _items(self, value: Items) -> str:
        prefix = [self.expression(each) for each in value.prefix]
        tail = ""
        low, high = value.low - len(prefix), None if value.high is None else value.high - len(prefix)
        if value.rest is not None and high != 0:
            rest = self._rule_of(value.rest)
            if not prefix:
                return f'"[" space {_listed(rest, max(low, 0), high)} space "]"'
            tail = " " + _repeated(f'("," space {rest})', max(low, 0), high)
        listed = ' "," space '.join(prefix)
        return f'"[" space {listed}{tail} space "]"'

    def _subset(self, value: Subset) -> str:
        return f'"[" space {self._chosen(value, 0, 0)} space "]"'

    def _chosen(self, value: Subset, index: int, count: int) -> str:
        """Return the name of a rule for what follows ``count`` values, of those from an index on."""
        left = len(value.texts) - index
        if not left or count == value.high:
            return '""'
        comma = '"," space ' if count else ""
        ways = [f"{comma}{_quoted(value.texts[index])} {self._chosen(value, index + 1, count + 1)}"]
        if count + left > value.low:  # this one may be left out
            ways.append(self._chosen(value, index + 1, count))
        text = " | ".join(ways)
        if text not in self._known:
            self._known[text] = self._add(text)
        return self._known[text]

    def _rule_of(self, value: Value) -> str:
        """Return the name of a rule for a value that is written more than once."""
        text = self.expression(value)
        return text if _NAME.fullmatch(text) or text in self.rules else self._add(text)

    def _fields(self, value: Fields) -> str:
        required = [self._pair(each.name, each.value) for each in value.properties if each.required]
        optional = [self._pair(each.name, each.value) for each in value.properties if not each.required]
        extra = None if value.extra is None else self._add(self._extra(value, value.extra))
        if required:
            listed = ' "," space '.join(required)
            return f'"{{" space {listed} {self._following(optional, extra)} space "}}"'
        if not optional:
            inner = "" if extra is None else _listed(extra, value.low, value.high)
            return f'"{{" space {inner} space "}}"'
        firsts = [f"{each} {self._following(optional[index + 1 :], extra)}" for index, each in enumerate(optional)]
        if extra is not None:
            firsts.append(f"{extra} {self._following([], extra)}")
        return f'"{{" space ({" | ".join(firsts)})? space "}}"'

    def _pair(self, name: str, value: Value) -> str:
        """Return the name of a rule for a property with its value."""
        text = _quoted(json.dumps(name, ensure_ascii=False))
        return self._add(f'{text} space ":" space {self.expression(value)}')

    def _following(self, optional: Sequence[str], extra: str | None) -> str:
        """Return the name of a rule for the properties that may follow others; shared by all that begin with more."""
        text = f'("," space {extra})*' if extra is not None else '""'
        if optional:
            text = f'("," space {optional[0]})? {self._following(optional[1:], extra)}'
        if text not in self._known:
            self._known[text] = self._add(text)
        return self._known[text]

    def _extra(self, fields: Fields, value: Value) -> str:
        """Return a further property, whose name is none of those that the schema names."""
        names = [*(each.name for each in fields.properties), *fields.forbidden]
        name = self._use("string")
        if fields.extra_names is not None:
            name = self._text(fields.extra_names)
        elif names:
            name = self._text(Text(f"^(?!(?:{'|'.join(map(_escaped, names))})$)"))
        return f'{name} space ":" space {self.expression(value)}'


def _literals(value: Literals) -> str:
    return _any_of([_quoted(text) for text in value.texts])


def _integers(value: IntegerRange) -> str:
    return f"({integer_range(value.low, value.high)})"


def _numbers(value: NumberRange) -> str:
    return f"({number_range(value)})"


def _quoted(text: str) -> str:
    """Return a literal of GBNF."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(name: str) -> str:
    """Return a name as a regular expression that matches it."""
    return re.sub(r"[\^$\\.*+?()\[\]{}|/]", r"\\\g<0>", name).replace("\n", "\\n").replace("\r", "\\r")


def _any_of(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"({' | '.join(choices)})"


def _repeated(text: str, low: int, high: int | None) -> str:
    if high is None:
        return text + ("*" if not low else "+" if low == 1 else f"{{{low},}}")
    return f"{text}{{{low},{high}}}"


def _listed(text: str, low: int, high: int | None) -> str:
    """Return so many of something, with commas between them."""
    if high == 0:
        return ""
    following = _repeated(f'("," space {text})', max(low - 1, 0), None if high is None else high - 1)
    return f"{text} {following}" if low else f"({text} {following})?"


def _without_text(rule: str) -> str:
    """Return a rule without its literals and classes."""
    return re.sub(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]', "", rule)
