"""What the monitor makes of its session; what it makes of a driver is in tests/faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.hardware.nvml import Card, NvmlSession
from tests.support.graphics_cards import a_card


def test_an_answer_that_makes_no_sense_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Iterator[Callable[[], list[Card]]] = iter([lambda: [a_card(0 // 0)], lambda: [a_card()]])
    monkeypatch.setattr(NvmlSession, "cards", lambda _session: next(answers)())
    with closing(GpuMonitor(read_seconds=20)) as monitor:
        assert monitor.cards() == []
        assert monitor.cards() == [a_card()]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
