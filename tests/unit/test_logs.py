"""Lines of the log."""

from __future__ import annotations

import logging

from mistral_api.system.logs import LINE_LENGTH, LineFormatter


def test_line_break_of_a_client_begins_no_line() -> None:
    record = logging.LogRecord("name", logging.INFO, __file__, 1, "GET %s", ("/\r\nforged: \x1b[0m",), None)
    assert LineFormatter().format(record).endswith("name: GET /\\r\\nforged: \\x1b[0m")


def test_line_that_a_client_made_long_is_cut() -> None:
    record = logging.LogRecord("name", logging.INFO, __file__, 1, "GET %s", ("/" + "x" * 100_000,), None)
    line = LineFormatter().format(record)
    assert "name: GET /xxx" in line
    assert len(line) < LINE_LENGTH + 50
    assert line.endswith(" more characters)")
