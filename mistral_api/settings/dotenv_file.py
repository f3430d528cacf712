"""``.env``: its values and their lines, as python-dotenv's parser reads them (dotenv/parser.py, dotenv/variables.py).

Stricter than python-dotenv, which passes over what it cannot read with a warning: each of these is an error with the
number of its line. A relative path counts from the folder of the file, and a Windows path may stand in quotes.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from mistral_api.setting_kinds import PATH, PROGRAM
from mistral_api.settings.declaration import setting_fields
from mistral_api.settings.errors import SettingError

# The variables that reach llama.cpp; the values of some are paths.
LLAMA_PREFIXES = ("LLAMA_ARG_", "EMBEDDING_LLAMA_ARG_")
# More bad lines than these are only counted.
_SHOWN_FAULTS = 5

_PATHS = {name: each.metadata["kind"] for name, each in setting_fields() if each.metadata["kind"] in (PATH, PROGRAM)}
_NAMES = {name for name, _ in setting_fields()}
_NAME = re.compile(r"[\w.-]+")
# What stands in quotes behind the first ``=``.
_QUOTED = re.compile(r"""=[^\S\r\n]*(["'])((?:\\.|(?!\1)[^\\])*)\1""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DotenvValue:
    """The value of one name.

    ``text``: with variables expanded and relative paths made absolute. ``parsed``: as python-dotenv alone reads it,
    which is what the command ``flask`` puts into the environment before this package is imported.
    """

    text: str
    parsed: str
    line: int


@dataclass(frozen=True, slots=True)
class DotenvFile:
    """A ``.env`` file; without values where there is none. Of lines with the same name the last one counts."""

    path: Path
    values: Mapping[str, DotenvValue] = field(default_factory=dict)


def read_dotenv_file(path: Path, environment: Mapping[str, str]) -> DotenvFile:
    """Read the file. ``environment`` has the variables that ``${NAME}`` stands for, and those of earlier lines.

    Raises SettingError that names every bad line, and quotes none, since any may hold a secret.
    """
    bindings = list(parse_stream(io.StringIO(_read_text(path))))
    faults = [f"'{path}' line {_line(each)}: {_fault(each)}" for each in bindings if _is_bad(each)]
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        raise SettingError(*faults[:_SHOWN_FAULTS], *([f"'{path}': {more} more such lines."] if more > 0 else []))
    return DotenvFile(path, _values(path, bindings, environment))


def _read_text(path: Path) -> str:
    """Return the text of the file, empty where there is none. Raises SettingError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if os.path.isdir(path):  # some people's virtual environment
            return ""
        raise SettingError(f"'{path}' cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")  # Windows' Notepad may write a byte order mark
    except UnicodeDecodeError as error:
        encoding = "it is UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "it is not UTF-8"
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingError(f"'{path}' cannot be read: {encoding} (line {line}); save it as UTF-8.") from error
    if "\0" in text:
        raise SettingError(f"'{path}' line {text[: text.index(chr(0))].count(chr(10)) + 1}: it holds a NUL character.")
    return text


def _is_bad(binding: Binding) -> bool:
    """Whether a line names no value. What is no name may be a secret, such as a URL without ``DATABASE_URL=``."""
    named = binding.key is None or (binding.value is not None and _NAME.fullmatch(binding.key))
    return binding.error or not named


def _line(binding: Binding) -> int:
    """Return the number of the line that the name stands in. The parser counts from the blank lines before it."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", blank))


def _fault(binding: Binding) -> str:
    _, equals, value = binding.original.string.strip().partition("=")
    if not equals or not binding.error or not value.lstrip().startswith(("'", '"')):
        return "expected NAME=value."
    if re.search(r"\\[\"']\s*$", value):
        return "a backslash before the closing quote makes it a part of the value; leave the quotes out."
    return "its closing quote is missing, or something follows it."


def _values(path: Path, bindings: Iterable[Binding], environment: Mapping[str, str]) -> dict[str, DotenvValue]:
    values: dict[str, DotenvValue] = {}
    before: dict[str, str] = {}
    known = ChainMap(dict(environment), before)
    for each in bindings:
        if each.key is None or each.value is None:
            continue
        # Names of variables have one case on Windows.
        name = each.key.upper() if sys.platform == "win32" else each.key
        written = _unescaped_path(each) if name in _PATHS else each.value
        if name in _NAMES or name.startswith(LLAMA_PREFIXES):
            _require_variables(path, name, each, known)
        before[name] = parsed = _expanded(each.value, known)
        values[name] = DotenvValue(_located(name, _expanded(written, known), path.parent), parsed, _line(each))
    return values


def _unescaped_path(binding: Binding) -> str:
    r"""Return a path. A backslash that is not doubled is a part of it, as Windows' users write "C:\models\new.gguf"."""
    quoted = _QUOTED.search(binding.original.string)
    if quoted is None or not re.search(r"\\[^\"']", quoted[2].replace("\\\\", "")):
        return binding.value or ""
    return quoted[2].replace("\\" + quoted[1], quoted[1])


def _require_variables(path: Path, name: str, binding: Binding, known: Mapping[str, str]) -> None:
    """Refuse a value with a variable that is not set: python-dotenv would put nothing in its place."""
    for atom in parse_variables(binding.value or ""):
        if isinstance(atom, Variable) and atom.default is None and atom.name not in known:
            # The name of the variable is not said: it may be a piece of a password.
            raise SettingError(
                f"{name} in '{path}' line {_line(binding)}: its value has a variable ${{…}} that is not set; "
                "${NAME:-text} says what stands in its place."
            )


def _expanded(text: str, known: Mapping[str, str]) -> str:
    return "".join(atom.resolve(known) for atom in parse_variables(text))


def _located(name: str, text: str, folder: Path) -> str:
    """Return a value whose relative paths count from the folder: of settings, and of llama.cpp's files that exist."""
    if not text.strip():
        return text
    if name in _PATHS:
        return locate(_PATHS[name], text.strip(), folder)
    if name.startswith(LLAMA_PREFIXES):
        return "".join(_located_file(part, folder) for part in re.split(r"([,:])", text))  # a.gguf:0.5,b.gguf:1
    return text


def locate(kind: object, text: str, folder: Path) -> str:
    """Return the path that a text means in this folder. The bare name of a program is left to PATH."""
    path = Path(text)
    if text.startswith("~") or (kind is PROGRAM and len(path.parts) == 1 and not (folder / path).is_file()):
        return text
    return str(folder / path)


def _located_file(part: str, folder: Path) -> str:
    relative = part and not os.path.isabs(part) and os.path.isfile(folder / part)
    return str(folder / part) if relative else part
