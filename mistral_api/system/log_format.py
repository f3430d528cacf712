"""How an event is written into a log: as a line of text, or as a line of JSON (LOG_FORMAT).

Times are UTC, in RFC 3339 with milliseconds. What a client can make as long as it likes, such as a path, is cut. No
character of an event begins a line of its own or moves the cursor of a terminal: what is not printable is escaped.
An exception is a part of its line (:mod:`mistral_api.system.exception_text`); its frames are shown at DEBUG.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import orjson

from mistral_api.system.exception_text import exception_text

# The longest text of an event in characters; what is in brackets after an exception, its frames, comes on top.
LINE_LENGTH = 2000
VALUE_LENGTH = 200
FORMATS = ("text", "json")
# Where a record keeps its line.
_LINE = "line of its formatter"

Value: TypeAlias = str | int | float | bool | None


class Fields:
    """An event that consists of named values: text shows it as logfmt, ``name=value name=value``, JSON as fields.

    Values that are None are left out. Pass it to a logger in the place of the message. ``event``: what JSON has as the
    message.
    """

    __slots__ = ("event", "values")

    def __init__(self, event: str, values: Mapping[str, Value]) -> None:
        self.event = event
        self.values = {name: _bounded(value) for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        return " ".join([f"{name}={_logfmt(value)}" for name, value in self.values.items()])


def _bounded(value: Value) -> Value:
    """Return a value with a length and a precision that a line can have."""
    if isinstance(value, float):
        return round(value, 1)
    if isinstance(value, str):
        return printable(cut(value, VALUE_LENGTH))
    return value


def _logfmt(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    bare = value and _QUOTED_BECAUSE_OF.isdisjoint(value)
    return value if bare else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_QUOTED_BECAUSE_OF = frozenset(' "=\\')


def printable(text: str) -> str:
    """Return a text in which what is no printable character is escaped, a tab aside."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() or each == "\t" else _escaped(each) for each in text])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cut(text: str, length: int) -> str:
    """Return the beginning of a text, and how much is missing."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length} more characters)"


def utc_time(seconds: float) -> str:
    """Return a Unix time in UTC, in RFC 3339 with milliseconds: ``2026-01-31T09:08:07.123Z``."""
    milliseconds = int(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class EventFormatter(logging.Formatter):
    """Formats an event once for all handlers that it is shared by."""

    def __init__(self, *, stacks: bool = False) -> None:
        """``stacks``: the frames of exceptions are shown too."""
        super().__init__()
        self._stacks = stacks

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: str | None = record.__dict__.get(_LINE)
        if line is None:
            line = record.__dict__[_LINE] = self.line(record)
        return line

    def line(self, record: logging.LogRecord) -> str:
        """Return the line, made anew."""
        raise NotImplementedError

    def exception_of(self, record: logging.LogRecord) -> str | None:
        """Return the exception of an event as text, None where it has none."""
        error = record.exc_info[1] if record.exc_info else None
        return None if error is None else exception_text(error, stack=self._stacks)


class LineFormatter(EventFormatter):
    """Formats an event as a line of text: time, level, name of the logger, message, exception."""

    def line(self, record: logging.LogRecord) -> str:
        """Return the line, made anew."""
        message, error = _message(record), self.exception_of(record)
        text = message if error is None else f"{message}: {error}"
        return printable(f"{utc_time(record.created)} {record.levelname} {record.name}: {text}")


class JsonFormatter(EventFormatter):
    """Formats an event as a JSON object: ``ts``, ``level``, ``logger``, ``message``, fields, ``exception``."""

    def line(self, record: logging.LogRecord) -> str:
        """Return the line, made anew."""
        fields = record.msg if isinstance(record.msg, Fields) else None
        message = _message(record) if fields is None else fields.event
        line: dict[str, Value] = {
            "ts": utc_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": printable(message),
        }
        if fields is not None:
            line |= fields.values
        error = self.exception_of(record)
        if error is not None:
            line["exception"] = printable(error)
        return orjson.dumps(line).decode()


def _message(record: logging.LogRecord) -> str:
    """Return the message, cut. An event whose arguments do not fit its message says so: no handler has to fail."""
    try:
        return cut(record.getMessage(), LINE_LENGTH)
    except Exception as error:  # noqa: BLE001 - whatever the arguments do
        return f"an event of {record.module}:{record.lineno} cannot be shown: {exception_text(error)}"


def formatter(form: str, *, stacks: bool) -> EventFormatter:
    """Return the formatter of a format of LOG_FORMAT."""
    return JsonFormatter(stacks=stacks) if form == "json" else LineFormatter(stacks=stacks)
