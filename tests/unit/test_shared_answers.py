"""Cached answers are in one memory for all API processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mistral_api.event_loop.loop import EventLoop
from mistral_api.generation.answer_storage import AnswerStorage, MemoryAnswers
from mistral_api.generation.shared_answers import shared_storage
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import ALONE, Hub, Siblings
from tests.support.event_loops import hanging, running_loop
from tests.support.peers import joined_peers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")

ANSWER = bytes(range(256))


@dataclass
class _Processes:
    first: AnswerStorage
    others: list[AnswerStorage]
    ends: list[Peer]

    @property
    def all(self) -> list[AnswerStorage]:
        return [self.first, *self.others]


@pytest.fixture
def last_loop() -> Iterator[EventLoop]:
    """The loop in which the first process reads what the last one says."""
    with running_loop() as running:
        yield running


@pytest.fixture
def processes(last_loop: EventLoop) -> Iterator[_Processes]:
    hub = Hub()
    first = shared_storage(MemoryAnswers(60, 1 << 20), Siblings(hub=hub), hub.catch_up)
    with joined_peers(hub, last_loop=last_loop) as ends:
        others = [shared_storage(MemoryAnswers(60, 0), Siblings(first=end), lambda: None) for end in ends]
        yield _Processes(first, others, ends)


def _keep(storage: AnswerStorage, key: str = "key", owner: str = "ann") -> None:
    answer, version = storage.find(owner, key)
    assert answer is None
    storage.keep(owner, key, ANSWER, version)


def test_one_process_alone_uses_its_own_memory() -> None:
    own = MemoryAnswers(60, 1 << 20)
    assert shared_storage(own, ALONE, lambda: None) is own


@pytest.mark.parametrize("keeping", [0, 1, 2])
def test_what_one_process_keeps_all_others_find_at_once(processes: _Processes, keeping: int) -> None:
    for number in range(20):
        _keep(processes.all[keeping], f"key {number}")
        assert [each.find("ann", f"key {number}")[0] for each in processes.all] == [ANSWER] * 3
    assert processes.first.find("bob", "key 0")[0] is None


def test_what_the_first_process_has_not_heard_yet_is_found_too(processes: _Processes, last_loop: EventLoop) -> None:
    for number, finding in enumerate((processes.others[0], processes.first)):
        _, version = processes.others[1].find("ann", f"key {number}")
        with hanging(last_loop):
            processes.others[1].keep("ann", f"key {number}", ANSWER, version)
            assert finding.find("ann", f"key {number}")[0] == ANSWER


@pytest.mark.parametrize("dropping", [0, 1])
def test_what_one_process_drops_is_gone_in_all(processes: _Processes, dropping: int) -> None:
    _keep(processes.others[1])
    _keep(processes.others[1], owner="bob")
    assert [processes.first.find(owner, "key")[0] for owner in ("ann", "bob")] == [ANSWER] * 2
    processes.all[dropping].forget("ann")
    assert [each.find("ann", "key")[0] for each in processes.all] == [None] * 3
    assert processes.others[0].find("bob", "key")[0] == ANSWER
    processes.all[dropping].clear()
    assert [each.find("bob", "key")[0] for each in processes.all] == [None] * 3


def test_an_answer_that_was_begun_before_a_deletion_is_not_kept(processes: _Processes) -> None:
    one, two = processes.others
    _, version = one.find("ann", "key")
    two.forget("ann")
    one.keep("ann", "key", ANSWER, version)
    assert two.find("ann", "key")[0] is None
    one.keep("ann", "key", ANSWER, None)  # which was found while the first process was away
    assert two.find("ann", "key")[0] is None


def test_without_the_first_process_nothing_is_cached(processes: _Processes) -> None:
    _keep(processes.others[0])
    processes.ends[0].close()
    alone = processes.others[0]
    assert alone.find("ann", "key") == (None, None)
    alone.keep("ann", "key", ANSWER, (0,))
    alone.forget("ann")
    alone.clear()
    alone.close()
    assert processes.others[1].find("ann", "key")[0] == ANSWER
