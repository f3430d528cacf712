"""The names of models in requests that were refused: recorded, clipped, and bounded in number."""

from __future__ import annotations

from datetime import date

import pytest

from mistral_api.recording import asked_models
from mistral_api.recording.asked_models import MOST_NAMES, NAME_CHARACTERS, OTHER_MODELS, AskedModels, asked_model


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"model": "gpt-4"}, "gpt-4"),
        ({"model": "x" * 5000}, "x" * NAME_CHARACTERS),
        ({"model": ""}, None),
        ({"model": 7}, None),
        ({}, None),
        ([{"model": "a"}], None),
        (None, None),
    ],
)
def test_model_of_a_request_is_a_text_that_is_not_long(body: object, name: str | None) -> None:
    assert asked_model(body) == name


def test_flood_of_names_is_recorded_under_one() -> None:
    names = AskedModels()
    names.known = lambda: ["served"]
    recorded = {names.recorded_name("ann", f"made-up-{number}") for number in range(1000)}
    assert len(recorded) == MOST_NAMES + 1
    assert OTHER_MODELS in recorded
    assert names.recorded_name("ann", "made-up-0") == "made-up-0"
    assert names.recorded_name("ann", "served") == "served"
    assert names.recorded_name("bob", "gpt-4") == "gpt-4"


def test_names_count_anew_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        day = 1

        @classmethod
        def now(cls, _zone: object) -> type[Clock]:
            return cls

        @classmethod
        def date(cls) -> date:
            return date(2026, 1, cls.day)

    monkeypatch.setattr(asked_models, "datetime", Clock)
    names = AskedModels()
    recorded = [names.recorded_name("ann", f"made-up-{number}") for number in range(MOST_NAMES + 1)]
    assert recorded[-1] == OTHER_MODELS
    Clock.day = 2
    assert names.recorded_name("ann", "late") == "late"
