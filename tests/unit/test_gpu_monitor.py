"""The GPU monitor with a failing session; misbehaving drivers are tested in tests/faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.hardware.nvml import Card, NvmlSession
from tests.support.gpu_cards import make_card


def test_gpu_reading_that_raises_is_logged_and_the_next_one_succeeds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Iterator[Callable[[], list[Card]]] = iter([lambda: [make_card(0 // 0)], lambda: [make_card()]])
    monkeypatch.setattr(NvmlSession, "cards", lambda _session: next(answers)())
    with closing(GpuMonitor(read_seconds=20)) as monitor:
        assert monitor.cards() == []
        assert monitor.cards() == [make_card()]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
