"""Regular expressions in the words that llama.cpp understands."""

from __future__ import annotations


def json_string_pattern(pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return the ``pattern`` of a JSON schema that llama.cpp's converter enforces as ``pattern`` means it.

    ``pattern`` is a JSON schema's: it may match anywhere in the string. The returned one describes the text between the
    quotes of a JSON string, with its escapes, and begins with ``^`` and ends with ``$``. ``min_length`` and
    ``max_length`` are those of the schema, in characters: llama.cpp ignores them beside a pattern, so they have to be
    left out of the schema then.

    Raises Untranslatable.
    """
    raise NotImplementedError


def decoded_pattern(pattern: str, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Return a pattern for a llama.cpp that uses llguidance, which compares the decoded value of the string.

    The bundled engine does so for ``json_schema`` of ``/completion``. Raises Untranslatable.
    """
    raise NotImplementedError


def whole_string_pattern(pattern: str) -> str:
    """Return what :func:`json_string_pattern` returns, for an expression that must match the whole text.

    That is the ``regex`` grammar of a custom tool whose text is a string inside the arguments of a function.
    Raises Untranslatable.
    """
    raise NotImplementedError


def text_grammar(pattern: str) -> str:
    """Return a grammar in GBNF of the texts that an expression matches as a whole. Raises Untranslatable."""
    raise NotImplementedError
