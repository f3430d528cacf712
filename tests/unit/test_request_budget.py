"""The constraints of one request have a budget of processor time together."""

from __future__ import annotations

import itertools
import time

import pytest

from mistral_api.constraints.schemas.admission import enforced_constraints
from mistral_api.errors import InvalidRequest
from mistral_api.generation.custom_inputs import input_constraints
from mistral_api.grammars import request_budget as budget
from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_cost import TOO_COSTLY
from mistral_api.wire.constraint_places import PlacedSchema

_unused = itertools.count()


def _tools(count: int) -> list[JsonObject]:
    """Return custom tools with grammars that nobody has translated yet."""
    definitions = [f"^budget{next(_unused)}$" for _ in range(count)]
    forms = [{"type": "grammar", "syntax": "regex", "definition": each} for each in definitions]
    return [{"type": "custom", "name": "c", "format": form} for form in forms]


def _schemas(count: int, *, strict: bool) -> list[PlacedSchema]:
    schemas = [{"type": "string", "pattern": f"^budget{next(_unused)}\\d$"} for _ in range(count)]
    return [PlacedSchema(f"tools[{at}]", each, of_tool=True, strict=strict) for at, each in enumerate(schemas)]


def _spend(monkeypatch: pytest.MonkeyPatch, seconds_each: float) -> None:
    """Let each look at the clock cost so much processor time."""
    clock = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(clock) * seconds_each)


def test_grammars_of_custom_tools_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    _spend(monkeypatch, 0.5)
    with budget.request_budget(), pytest.raises(InvalidRequest) as refused:
        input_constraints(_tools(100))
    assert (refused.value.code, refused.value.param) == (TOO_COSTLY, "tools")


@pytest.mark.parametrize("strict", [True, False])
def test_schemas_have_what_the_grammars_left(monkeypatch: pytest.MonkeyPatch, strict: bool) -> None:
    _spend(monkeypatch, budget.MOST_SECONDS)
    with budget.request_budget():
        with budget.charged():
            pass
        assert budget.seconds_left() == 0
        with pytest.raises(InvalidRequest) as refused:
            enforced_constraints(_schemas(2, strict=strict), {})
    assert (refused.value.code, refused.value.param) == (TOO_COSTLY, "tools[0]")


def test_each_request_has_its_own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    _spend(monkeypatch, 0.0001)
    for _ in range(2):
        with budget.request_budget():
            assert budget.seconds_left() == budget.MOST_SECONDS
            with budget.request_budget(), budget.charged():
                pass
            assert budget.seconds_left() < budget.MOST_SECONDS
            assert len(enforced_constraints(_schemas(3, strict=True), {})) == 3
            assert len(input_constraints(_tools(3))) == 3


def test_what_is_known_already_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = _tools(3)
    known = input_constraints(tools)
    _spend(monkeypatch, 10.0)
    with budget.request_budget():
        assert input_constraints(tools * 20)[:3] == [
            PlacedSchema(f"tools[{at}].format", each.schema, of_tool=True)
            for at, each in enumerate(known)
            if isinstance(each, PlacedSchema)
        ]
