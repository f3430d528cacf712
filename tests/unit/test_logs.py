"""Lines of the log: text, JSON, exceptions."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from sqlalchemy.exc import IntegrityError

from mistral_api.system.exception_text import exception_text, without_values
from mistral_api.system.log_format import LINE_LENGTH, VALUE_LENGTH, Fields, Value, formatter


def _record(message: object, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    failure = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("name", logging.INFO, __file__, 1, message, arguments, failure)


def _line(record: logging.LogRecord, form: str = "text", *, stacks: bool = False) -> str:
    return formatter(form, stacks=stacks).format(record)


def _raised(error: Exception) -> Exception:
    """Return an exception with a traceback."""
    with pytest.raises(type(error)) as raised:
        raise error
    return raised.value


def test_line_break_of_a_client_begins_no_line() -> None:
    line = _line(_record("GET %s", "/\r\nforged: \x1b[0m\u2028\u202e\ud800"))
    assert line.endswith("name: GET /\\r\\nforged: \\x1b[0m\\u2028\\u202e\\ud800")


def test_line_that_a_client_made_long_is_cut() -> None:
    line = _line(_record("GET %s", "/" + "x" * 100_000))
    assert "name: GET /xxx" in line
    assert len(line) < LINE_LENGTH + 100
    assert line.endswith(" more characters)")


def test_time_is_utc_in_rfc_3339_with_milliseconds() -> None:
    record = _record("x")
    record.created = 1769850487.0625
    assert _line(record) == "2026-01-31T09:08:07.062Z INFO name: x"
    record = _record("x")
    record.created = 1769850487.0625
    assert json.loads(_line(record, "json"))["ts"] == "2026-01-31T09:08:07.062Z"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"a": "plain", "b": 7, "c": 12.345, "d": True, "e": None}, "a=plain b=7 c=12.3 d=true"),
        ({"a": "two words", "b": 'a "quote"', "c": "", "d": "x=y", "e": "C:\\x"},
         r'a="two words" b="a \"quote\"" c="" d="x=y" e="C:\\x"'),
        ({"a": "line\nbreak"}, r'a="line\\nbreak"'),
        ({"a": "é €"}, 'a="é €"'),
    ],
)  # fmt: skip
def test_named_values_are_logfmt_in_text_and_fields_in_json(values: Mapping[str, Value], text: str) -> None:
    assert _line(_record(Fields("request", values))).endswith(f"INFO name: {text}")
    found = json.loads(_line(_record(Fields("request", values)), "json"))
    assert found["message"] == "request"
    assert list(found)[4:] == [name for name, value in values.items() if value is not None]


def test_value_that_a_client_made_long_is_cut() -> None:
    for form in ("text", "json"):
        line = _line(_record(Fields("request", {"session": "s" * 100_000})), form)
        assert len(line) < VALUE_LENGTH + 200


@pytest.mark.parametrize("form", ["text", "json"])
def test_exception_is_one_line_with_type_message_and_place(form: str) -> None:
    line = _line(_record("it failed", error=_raised(TypeError("no such thing"))), form)
    assert "\n" not in line
    assert "Traceback" not in line
    assert re.search(r"TypeError: no such thing at unit/test_logs\.py:\d+ _raised", line)


@pytest.mark.parametrize("form", ["text", "json"])
def test_frames_of_an_exception_are_shown_at_debug_on_the_same_line(form: str) -> None:
    def outer() -> None:
        without_values(None)  # type: ignore[arg-type]

    try:
        outer()
    except TypeError as error:
        line = _line(_record("it failed", error=error), form, stacks=True)
    assert "\n" not in line
    assert re.search(r"at mistral_api/system/exception_text\.py:\d+ without_values \[.* outer > mistral_api/", line)


def test_event_whose_arguments_do_not_fit_is_a_line_too() -> None:
    assert "an event of test_logs:1 cannot be shown: TypeError: " in _line(_record("%d", "word"))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("secretword"),
        ValueError("could not convert string to float: 'secretword'"),
        ValueError(f'invalid literal: {"secretword said " * 10!r} and "secretword\'s"'),
        ValueError("'" + "secretword " * 1000 + "'"),
        RuntimeError("it failed\nDETAIL: Key (text)=(secretword) already exists."),
        RuntimeError('invalid input syntax for type uuid: "secretword"'),
        RuntimeError("cannot connect to postgresql://me:secretword@host/db"),
        IntegrityError("INSERT", {"x": "secretword"}, Exception("broken\nDETAIL: secretword")),
    ],
)
def test_message_of_an_exception_has_no_words_of_users(error: Exception) -> None:
    assert "secretword" not in exception_text(_raised(error), stack=True)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RuntimeError('duplicate key violates unique constraint "usage_pkey"'), 'constraint "usage_pkey"'),
        (OSError(28, "No space left on device", "/data/journal"), "OSError: No space left on device (/data/journal)"),
        (RuntimeError("the users' file can't be read"), "the users' file can't be read"),
    ],
)
def test_message_of_an_exception_names_what_is_ours(error: Exception, shown: str) -> None:
    assert shown in exception_text(error)


def test_cause_of_an_exception_is_named() -> None:
    error = RuntimeError("it failed")
    error.__cause__ = OSError(2, "No such file or directory")
    assert exception_text(error) == "RuntimeError: it failed from FileNotFoundError: No such file or directory"


def test_exception_whose_message_fails_is_shown_by_its_type() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert exception_text(Broken()) == "Broken: its message cannot be shown (ZeroDivisionError)"


def test_hooks_are_those_of_python_where_nothing_is_configured() -> None:
    """The tests themselves, and a program that uses our application, keep their own tracebacks."""
    assert sys.unraisablehook.__module__ != "mistral_api.system.logs"


_COMMAND = """
import logging, sys, threading
from mistral_api.system.logs import configure_command_log
configure_command_log()
logging.getLogger("mistral_api.x").info("silent")
logging.getLogger("mistral_api.x").warning("loud")
def fail(): raise KeyError("secretword")
thread = threading.Thread(target=fail, name="worker")
thread.start(); thread.join()
class Unraisable:
    def __del__(self): raise ValueError("'secretword'")
Unraisable()
print("the answer")
raise RuntimeError("no way on: 'secretword'")
"""


_PROMPT = """
import code
from mistral_api.system.logs import configure_command_log
configure_command_log()
code.interact(banner="", exitmsg="")
"""


def test_mistake_at_a_prompt_is_shown_as_python_shows_it() -> None:
    done = subprocess.run([sys.executable, "-c", _PROMPT], input="nonsense\nprint(6 * 7)\n", capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0
    assert "42\n" in done.stdout
    assert "NameError: name 'nonsense' is not defined" in done.stderr
    assert "unexpected error" not in done.stderr


def test_what_nobody_has_caught_is_one_line_and_the_answer_of_a_command_is_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", _COMMAND], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "the answer\n"), done.stderr
    own = "mistral_api.system.logs"
    lines = [line.partition(" ")[2] for line in done.stderr.splitlines()]
    assert lines == [
        "WARNING mistral_api.x: loud",
        f"ERROR {own}: the thread worker was ended by an unexpected error: KeyError: '…' at <string>:7 fail",
        f"WARNING {own}: an error could not be raised: ValueError: '…' at <string>:11 __del__",
        f"CRITICAL {own}: ended by an unexpected error: RuntimeError: no way on: '…' at <string>:14 <module>",
    ]
