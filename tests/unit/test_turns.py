"""A few at a time have a turn; whoever waits for one has it in the order of arrival, unless it gives up."""

from __future__ import annotations

from mistral_api.event_loop.turns import Turns
from mistral_api.event_loop.waiting import Signal
from tests.support.event_loops import run_as_task, running_loop
from tests.support.processes import wait_for


def test_no_more_than_may_have_a_turn_at_once_in_the_order_of_arrival() -> None:
    turns, begun, ended, go_on = Turns(2), list[int](), list[int](), [Signal() for _ in range(5)]

    def work(number: int) -> None:
        with turns.turn() as has_turn:
            assert has_turn
            begun.append(number)
            go_on[number].wait(10)
        ended.append(number)

    with running_loop() as loop:
        for number in range(5):
            loop.spawn(lambda number=number: work(number))  # type: ignore[misc]
        run_as_task(loop, lambda: None)
        assert begun == [0, 1]
        go_on[1].set()
        wait_for(lambda: begun == [0, 1, 2], "the next one")
        for signal in go_on:
            signal.set()
        wait_for(lambda: len(ended) == 5, "all of them")
        assert begun == [0, 1, 2, 3, 4]


def test_a_turn_that_does_not_come_in_time_is_not_taken() -> None:
    turns = Turns(1)
    with turns.turn() as first:
        assert first
        with turns.turn(0.01) as second:
            assert not second
    with turns.turn(0.01) as third:
        assert third


def test_a_task_that_ends_while_it_waits_leaves_its_place() -> None:
    turns = Turns(1)
    with turns.turn(), running_loop() as loop:
        loop.spawn(lambda: _wait(turns))
        run_as_task(loop, lambda: None)
    with turns.turn(0.0) as free:
        assert free


def _wait(turns: Turns) -> None:
    with turns.turn():
        raise AssertionError("it has no turn")
