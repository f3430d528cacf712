"""llama.cpp's own reading of a command line, in the very library that the bundled engine is made of.

xllamacpp exports ``common_params_parse`` of llama.cpp (common/arg.h) under its C++ name, and holds llama.cpp's
parameters inside of each ``CommonParams``, after the head of a Python object. So a test can have both read the same
words. That is of no use beyond tests: the names and the place are nobody's promise.

``python -m tests.support.llama_cpp_parser`` reads JSON, a list of command lines, and prints JSON: what each sets here
and there. With ``--help`` it prints the help of llama.cpp's server.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from enum import EnumType
from typing import Any, Final

import xllamacpp
from xllamacpp import xllamacpp as library

from mistral_api.embedded.engine.flags import parse_options
from mistral_api.embedded.engine.parameters import common_params

_PARSE: Final = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
# LLAMA_EXAMPLE_SERVER (common/common.h).
_SERVER: Final = 12
# The reference count and the type, before the fields of an object.
_HEAD_BYTES: Final = 16
_NESTED: Final = ("CommonParams", "CpuParams", "CommonGrammar")


def main() -> None:
    """Answer on the standard output, which llama.cpp must not write to meanwhile."""
    if sys.argv[1:] == ["--help"]:
        parse_as_llama_cpp(["--help"])
        return
    command_lines = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    defaults = attributes_of(xllamacpp.CommonParams())
    readings = [(attributes_of(_ours(words)), _theirs(words)) for words in command_lines]
    enumerations: dict[str, list[str]] = {
        name: [member.name for member in _members(each)]
        for name, each in vars(xllamacpp).items()
        if isinstance(each, EnumType)
    }
    json.dump({"defaults": defaults, "readings": readings, "enumerations": enumerations}, answers)
    answers.flush()
    os._exit(0)


def parse_as_llama_cpp(words: Sequence[str]) -> xllamacpp.CommonParams | None:
    """Return what llama.cpp makes of the words, or None where it refuses them."""
    parse = getattr(ctypes.CDLL(library.__file__), _PARSE)
    parse.restype = ctypes.c_bool
    encoded = [word.encode() for word in ("llama-server", *words)]
    arguments = (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)
    params = xllamacpp.CommonParams()
    taken = parse(len(encoded), arguments, ctypes.c_void_p(id(params) + _HEAD_BYTES), _SERVER, None)
    return params if taken else None


def attributes_of(params: object, prefix: str = "") -> dict[str, str]:
    """Return the text of every attribute, by path."""
    found: dict[str, str] = {}
    for name in dir(params):
        value: Any = None if name.startswith("_") else getattr(params, name)
        if type(value).__name__.startswith(_NESTED):
            found |= attributes_of(value, f"{prefix}{name}.")
        elif not (value is None or callable(value)):
            found[prefix + name] = repr(sorted(value) if isinstance(value, set) else value)
    return found


def _members(enumeration: Any) -> list[Any]:
    """Return the members of an enumeration without their other names."""
    return list(enumeration)


def _ours(words: Sequence[str]) -> xllamacpp.CommonParams:
    return common_params(parse_options(words, {}).values)


def _theirs(words: Sequence[str]) -> dict[str, str] | None:
    params = parse_as_llama_cpp(words)
    return None if params is None else attributes_of(params)


if __name__ == "__main__":
    main()
