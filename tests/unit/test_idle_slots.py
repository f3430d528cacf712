"""What earlier requests have left in idle slots of a shared cache: what is cleared, and which slot a request gets."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mistral_api.control.shared_cache import SharedCache
from mistral_api.errors import ModelUnavailable
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.idle_slots import IdleSlots

CACHE = SharedCache(tokens=1000, request=1000, slots=4)


class Engine:
    """A model server's slots: the tokens in each, and the seed of its last request; None while it is busy."""

    def __init__(self, *slots: tuple[int, int] | None) -> None:
        self.slots = list(slots)
        self.cleared: list[int] = []
        self.is_away = self.refuses = False
        self.idle = IdleSlots(cast("ModelServerClient", self), lambda: CACHE)

    def get(self, path: str) -> Any:
        if self.is_away:
            raise ModelUnavailable("away")
        assert path == "/slots"
        return [
            {"id": number, "is_processing": slot is None}
            | ({} if slot is None else {"n_prompt_tokens": slot[0], "id_task": number, "params": {"seed": slot[1]}})
            for number, slot in enumerate(self.slots)
        ]

    def query(self, path: str, payload: object, call: object) -> dict[str, object]:
        if self.refuses:
            raise ModelUnavailable("refused")
        number = int(path.removeprefix("/slots/").removesuffix("?action=erase"))
        self.cleared.append(number)
        self.slots[number] = (0, 0)
        return {}

    def make_room(self, taken: int, need: int, conversation: str = "new", **request: object) -> tuple[int | None, bool]:
        """Return the slot of a request, and whether an idle slot has more than its share."""
        placed, is_large = self.idle.make_room(taken, need, cast("ChatPayload", request), conversation)
        return placed.get("id_slot"), is_large


def test_request_gets_the_emptiest_slot_and_the_oldest_are_cleared_for_it() -> None:
    engine = Engine((300, 1), (200, 2), (300, 3), (10, 4))
    assert engine.make_room(500, 500) == (3, True)
    assert engine.cleared == [0]


def test_conversation_goes_on_in_its_slot() -> None:
    engine = Engine((600, 1), (200, 2), (0, 0), (0, 0))
    engine.idle.note("first", cast("ChatPayload", {"seed": 1}))
    assert engine.make_room(900, 900, "first") == (0, True)
    assert engine.cleared == [1]


def test_slot_with_more_than_a_request_may_need_is_cleared_for_it() -> None:
    engine = Engine((600, 1), (600, 2), None, None)
    assert engine.make_room(250, 250, id_slot=1) == (1, True)
    assert engine.cleared == [1]


def test_nothing_is_cleared_where_all_fits() -> None:
    engine = Engine((250, 1), (250, 2), (200, 3), None)
    assert engine.make_room(300, 250) == (2, False)
    assert engine.cleared == []


def test_two_requests_at_once_get_two_slots() -> None:
    engine = Engine((0, 0), (0, 0), None, None)
    assert {engine.make_room(500, 250)[0], engine.make_room(500, 250)[0]} == {0, 1}
    assert engine.make_room(500, 250)[0] is None


def test_slots_of_several_choices_are_llama_cpps_choice() -> None:
    engine = Engine((500, 1), (500, 2), None, None)
    assert engine.make_room(700, 700, n=2) == (None, False)
    assert engine.cleared == [0, 1]


def test_slots_that_nobody_can_see_or_clear_are_looked_at_again() -> None:
    engine = Engine((500, 1), (500, 2), None, None)
    engine.refuses = True
    assert engine.make_room(700, 700)[1] is True
    engine.is_away = True
    assert engine.make_room(700, 700) == (None, True)


@pytest.mark.parametrize("number", [0, 3])
def test_slot_that_was_chosen_before_stays(number: int) -> None:
    assert Engine((0, 0), (0, 0), (0, 0), None).make_room(700, 700, id_slot=number)[0] == number


def test_slot_that_a_request_is_on_its_way_to_is_not_cleared() -> None:
    engine = Engine((300, 1), (300, 2), (0, 0), (0, 0))
    assert engine.make_room(400, 300, id_slot=0) == (0, True)
    assert engine.make_room(700, 300)[0] == 2
    assert engine.cleared == []  # llama.cpp would do it once that one has ended
    assert engine.make_room(800, 100)[0] == 3
    assert engine.cleared == [1]
