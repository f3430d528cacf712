"""The examination as a whole: checks that hang or fail, and the worst of what was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mistral_api.doctor import examination
from mistral_api.doctor.finding import Check, Finding, Level, failure, ok, warning, worst_level
from mistral_api.settings import Settings


def test_a_check_that_hangs_or_fails_keeps_no_other_from_being_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "DEADLINE_SECONDS", 0.2)
    released = threading.Event()

    def hang(_settings: Settings) -> Iterator[Finding]:
        released.wait(30)
        yield ok("slow", "at last")

    def fail(_settings: Settings) -> Iterator[Finding]:
        yield ok("broken", "never heard")
        raise ZeroDivisionError

    def find(_settings: Settings) -> Iterator[Finding]:
        yield ok("fine", "as it should be")

    checks = (Check("slow", hang), Check("broken", fail), Check("fine", find))
    found = examination.examine(Settings(), checks)
    released.set()
    assert [(each.subject, each.level) for each in found] == [
        ("slow", "failure"),
        ("broken", "failure"),
        ("fine", "ok"),
    ]
    assert "ZeroDivisionError" in found[1].text


def test_the_worst_level_counts() -> None:
    good, middling, bad = ok("a", ""), warning("b", ""), failure("c", "")
    assert [worst_level(each) for each in ([], [good], [middling, good], [good, bad, middling])] == [
        Level.OK, Level.OK, Level.WARNING, Level.FAILURE,
    ]  # fmt: skip
