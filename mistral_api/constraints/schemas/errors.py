"""Why a JSON schema is refused."""

from __future__ import annotations


class SchemaRefused(ValueError):
    """A part of a schema cannot be enforced.

    ``path`` leads to it from the schema, as in ``.properties.age.multipleOf``. ``reason`` is a sentence without its
    full stop.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Impossible(Exception):
    """No value fits: what has to hold together contradicts itself. ``path`` leads to the part that says so."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
