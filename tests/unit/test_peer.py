"""Two API processes that speak with each other over a pair of sockets."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from mistral_api.event_loop import waiting
from mistral_api.event_loop.loop import EventLoop
from mistral_api.event_loop.waiting import Signal
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub
from tests.support.event_loops import hanging, run_as_task, running_loop
from tests.support.processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")

SECONDS = 10.0


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


@pytest.fixture
def pair(loop: EventLoop) -> Iterator[tuple[Peer, Peer]]:
    ours, theirs = socket.socketpair()
    peers = Peer(ours, "theirs"), Peer(theirs, "ours")
    yield peers
    for each in peers:
        each.start(loop)
        each.close()
    _let_pass(loop)


def _let_pass(loop: EventLoop) -> None:
    """Return once the loop has done what it was asked before."""
    run_as_task(loop, lambda: None)


def test_a_peer_answers_what_it_is_asked(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    asked.handle("double", lambda word, times: word * times)
    asking.start(loop)
    asked.start(loop)
    assert asking.call("double", "ab", 2) == "abab"
    assert run_as_task(loop, lambda: asking.call("double", "ä", 3)) == "äää"


def test_a_question_that_waits_holds_up_no_other(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    go_on, answers = Signal(), []
    asked.handle("wait", lambda: go_on.wait(SECONDS), waits=True)
    asked.handle("at-once", lambda: "here")
    asking.start(loop)
    asked.start(loop)
    thread = threading.Thread(target=lambda: answers.append(asking.call("wait")))
    thread.start()
    assert asking.call("at-once") == "here"
    go_on.set()
    thread.join(SECONDS)
    assert answers == [True]


def test_a_large_answer_arrives_whole(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    asked.handle("large", lambda: "x" * 20_000_000)
    asking.start(loop)
    asked.start(loop)
    assert len(asking.call("large")) == 20_000_000


def test_what_was_told_is_known_without_waiting_for_the_loop(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    telling, told = pair
    heard: list[int] = []
    told.handle("note", heard.append)
    telling.start(loop)
    told.start(loop)
    hub = Hub()
    hub.join(told)
    with hanging(loop):
        for number in range(100):
            telling.tell("note", number)
        telling.flush()
        hub.catch_up()
        assert heard == list(range(100))


def test_nobody_reads_before_there_is_a_loop_for_what_waits(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    telling, told = pair
    hub, heard = Hub(), threading.Event()
    in_task: list[bool] = []

    def hear() -> None:
        in_task.append(waiting.in_task())
        heard.set()

    hub.offer(lambda peer: peer.handle("hear", hear, waits=True))
    hub.join(told)
    telling.start(loop)
    telling.tell("hear")
    hub.catch_up()
    assert not in_task
    told.start(loop)
    assert heard.wait(SECONDS)
    assert in_task == [True]


def test_what_there_is_no_room_for_is_sent_later(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    telling, told = pair
    heard: list[int] = []
    told.handle("note", lambda number, _filling: heard.append(number))
    telling.start(loop)
    for number in range(5000):
        telling.tell("note", number, "x" * 2000)
    with pytest.raises(PeerGone, match="read in time"):
        telling.flush(0.01)
    told.start(loop)
    telling.flush()
    told.catch_up()
    assert heard == list(range(5000))


def test_large_answers_are_made_as_they_are_taken(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    made: list[int] = []

    def answer(number: int) -> str:
        made.append(number)
        return "x" * 5_000_000

    asked.handle("large", answer, waits=True)
    asked.start(loop)
    lengths: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: lengths.append(len(asking.call("large", number))))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(made) == 1, "the first answer")
    for _ in range(10):
        _let_pass(loop)
    assert len(made) == 1  # which waits to be taken
    asking.start(loop)
    for thread in threads:
        thread.join(SECONDS)
    assert lengths == [5_000_000] * 12


def test_a_question_to_a_process_that_has_ended_is_not_answered(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    asked.handle("never", lambda: Signal().wait(SECONDS), waits=True)
    ended = threading.Event()
    asking.on_end(ended.set)
    asking.start(loop)
    asked.start(loop)
    failed: list[PeerGone] = []

    def ask() -> None:
        try:
            asking.call("never")
        except PeerGone as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    run_as_task(loop, lambda: waiting.sleep(0))
    asked.close()
    thread.join(SECONDS)
    assert ended.wait(SECONDS)
    assert asking.ended
    assert failed
    with pytest.raises(PeerGone):
        asking.call("never")
    asking.tell("never")  # which nobody hears


@pytest.mark.parametrize("method", ["fails", "nobody-does-this"])
def test_what_fails_is_said_to_have_failed(
    loop: EventLoop, pair: tuple[Peer, Peer], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    asking, asked = pair
    asked.handle("fails", lambda: int("no number"))
    asked.handle("goes-on", lambda: True)
    asking.start(loop)
    asked.start(loop)
    with pytest.raises(PeerGone, match="could not do"):
        asking.call(method)
    assert asking.call("goes-on") is True
    assert method in caplog.text


def test_a_slow_answer_is_not_waited_for(loop: EventLoop, pair: tuple[Peer, Peer]) -> None:
    asking, asked = pair
    asking.start(loop)
    with pytest.raises(PeerGone, match="in time"):
        asking.call("unread", seconds=0.01)
    asked.start(loop)


def test_the_hub_offers_everything_to_each_process_that_joins(loop: EventLoop) -> None:
    hub = Hub()
    hub.offer(lambda peer: peer.handle("name", lambda: peer.name))
    ends = [socket.socketpair() for _ in range(2)]
    inner = [Peer(end[0], f"process {number}") for number, end in enumerate(ends)]
    outer = [Peer(end[1], "first") for end in ends]
    for peer in inner:
        hub.join(peer)
    for peer in (*inner, *outer):
        peer.start(loop)
    assert [peer.call("name") for peer in outer] == ["process 0", "process 1"]
    hub.close()
    for peer in outer:
        peer.close()
    _let_pass(loop)
