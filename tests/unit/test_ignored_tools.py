"""The types of tools that are left out: what the client and the log are told has bounds."""

from __future__ import annotations

import logging

import pytest
from marshmallow import ValidationError

from mistral_api.generation import ignored_tools
from mistral_api.generation.ignored_tools import ignored_types
from mistral_api.wire.anthropic_tools import TOOL


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a log that has been told of nothing."""
    monkeypatch.setattr(ignored_tools, "_told", set())


def test_each_type_is_named_once_and_the_log_is_told_once_for_each_maker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert ignored_types("OpenAI", ["mcp", "web_search", "mcp"]) == ("mcp", "web_search")
    assert ignored_types("OpenAI", ["web_search", "computer"]) == ("web_search", "computer")
    ignored_types("Anthropic", ["computer"])
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "mcp, web_search",
        "computer",
        "computer",
    ]


def test_header_and_log_have_bounds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for request in range(10):
        types = [f"tool_{request}_{number}" for number in range(100)]
        assert ignored_types("Anthropic", types) == tuple(types[:32])
    assert sum(record.getMessage().count("tool_") for record in caplog.records) == 100


def test_type_of_a_hosted_tool_has_at_most_64_characters() -> None:
    TOOL.check({"type": "x" * 55 + "_20250305", "name": "x"})
    with pytest.raises(ValidationError):
        TOOL.check({"type": "x" * 56 + "_20250305", "name": "x"})
