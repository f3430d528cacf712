"""Owners take turns for trials, and none keeps all places."""

from __future__ import annotations

import threading

import pytest

from mistral_api.constraints.trial_queue import MOST_WAITING_OF_ONE, TrialQueue
from mistral_api.errors import Unavailable
from tests.support.processes import wait_for


def _begin(queue: TrialQueue, owner: str, order: list[str]) -> threading.Thread:
    """Have a request of an owner wait, and note its turn."""

    def run() -> None:
        with queue.turn(owner):
            order.append(owner)

    before = len(queue._tickets)
    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: len(queue._tickets) == before + 1, "a request that waits")
    return thread


def test_owner_with_many_trials_delays_another_by_one() -> None:
    queue, order = TrialQueue(), list[str]()
    with queue.turn("eve"):
        threads = [_begin(queue, "eve", order) for _ in range(3)]
        threads.append(_begin(queue, "ada", order))
    for thread in threads:
        thread.join(10)
    assert order == ["ada", "eve", "eve", "eve"]


def test_owner_has_no_more_than_half_of_the_places() -> None:
    queue, order = TrialQueue(), list[str]()
    with queue.turn("eve"):
        threads = [_begin(queue, "eve", order) for _ in range(MOST_WAITING_OF_ONE - 1)]
        with pytest.raises(Unavailable), queue.turn("eve"):
            pass
        threads.append(_begin(queue, "ada", order))
    for thread in threads:
        thread.join(10)
    assert order.count("ada") == 1
    assert not queue._tickets


def test_failure_within_a_turn_ends_it() -> None:
    queue = TrialQueue()
    for _ in range(2):
        with pytest.raises(KeyError), queue.turn("ada"):
            raise KeyError
    assert not queue._tickets
