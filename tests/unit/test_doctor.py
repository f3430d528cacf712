"""The examination as a whole: checks that hang or fail, and the worst of what was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mistral_api.doctor import examination, model_server
from mistral_api.doctor.finding import Check, Finding, Level, failure, ok, warning, worst_level
from mistral_api.settings import Settings
from mistral_api.upstream.external_probe import ProbeResult


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


@pytest.mark.parametrize(
    ("probe", "level", "text"),
    [
        (ProbeResult("ready"), "ok", "http://gpu:8000 answers"),
        (ProbeResult("loading", "It is loading."), "warning", "http://gpu:8000: It is loading."),
        (ProbeResult("unreachable", "It is away."), "failure", "http://gpu:8000: It is away."),
    ],
)
def test_a_model_server_of_others_is_as_its_probe_says(
    monkeypatch: pytest.MonkeyPatch, probe: ProbeResult, level: str, text: str
) -> None:
    monkeypatch.setattr(model_server, "probe_external", lambda _client: probe)
    (found,) = model_server.check_model_server(Settings(model_server_url="http://ann:secret@gpu:8000"))
    assert (found.level, found.text) == (level, text)


def test_the_worst_level_counts() -> None:
    good, middling, bad = ok("a", ""), warning("b", ""), failure("c", "")
    assert [worst_level(each) for each in ([], [good], [middling, good], [good, bad, middling])] == [
        Level.OK, Level.OK, Level.WARNING, Level.FAILURE,
    ]  # fmt: skip
