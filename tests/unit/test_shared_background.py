"""Responses in the background of several API processes: found, followed and ended from each of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from mistral_api.errors import Unavailable
from mistral_api.payload_types.completions import Chunk
from mistral_api.recording.recorder import Recorder
from mistral_api.responses import remote_response
from mistral_api.responses.background import FOLLOWED_AFTER_END, MOST_WAITING_BYTES, BackgroundRunner
from mistral_api.responses.background_response import BackgroundResponse, LiveResponse
from mistral_api.responses.shared_background import background_runner
from mistral_api.upstream.slot_pool import OwnSlotPool
from mistral_api.upstream.slot_queue import Waiter
from tests.support.background_responses import background_response
from tests.support.chat_chunks import TEXT_DELTAS, chunk_stream
from tests.support.exchanges import undelivered_recorder
from tests.support.processes import wait_for
from tests.support.sibling_peers import SiblingPeers, sibling_peers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")

SECONDS = 10.0
CHUNKS: list[Chunk] = chunk_stream(TEXT_DELTAS, "stop")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder without a database."""
    recorder = undelivered_recorder(tmp_path / "journal")
    recorder.start()
    yield recorder
    recorder.close(seconds=0)


class Processes:
    """Three processes. ``runners``: those of each; ``forgotten``: how often each has looked what was deleted."""

    def __init__(self, peers: SiblingPeers, most_running: int) -> None:
        self.peers = peers
        self.forgotten = [0, 0, 0]
        self.runners: list[BackgroundRunner] = [
            background_runner(most_running, siblings, self._looking(number))
            for number, siblings in enumerate((peers.first, *peers.others))
        ]
        peers.start()

    def _looking(self, number: int) -> Callable[[], None]:
        def look() -> None:
            self.forgotten[number] += 1

        return look

    def find(self, number: int, response: BackgroundResponse, owner: str = "me") -> LiveResponse | None:
        """Return a response as a process finds it."""
        return self.runners[number].find(owner, response.response["id"])

    def found(self, number: int, response: BackgroundResponse) -> LiveResponse:
        """Return a response that a process must find."""
        found = self.find(number, response)
        assert found is not None
        return found


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Three processes that generate as many responses at a time as the test's parameter says, none by default."""
    with sibling_peers() as peers:
        processes = Processes(peers, getattr(request, "param", 0))
        yield processes
        for runner in processes.runners:
            runner.close()


def _types(events: Iterator[bytes]) -> list[str]:
    return [event.split(b"\n")[0].decode().removeprefix("event: ") for event in events if not event.startswith(b":")]


def _numbers(events: Iterator[bytes]) -> list[int]:
    return [orjson.loads(event.split(b"data: ")[1])["sequence_number"] for event in events if event[:1] != b":"]


@pytest.mark.parametrize("maker", [0, 1])
def test_every_process_finds_a_response_that_waits_and_only_for_its_owner(
    processes: Processes, recorder: Recorder, maker: int
) -> None:
    response = background_response(recorder)
    processes.runners[maker].add(response)
    for number in range(3):
        found = processes.found(number, response)
        assert (found.response, found.ended) == (response.response, False)
        assert found.response["status"] == "queued"
        assert found.input == response.input
        assert processes.find(number, response, "you") is None
        assert processes.runners[number].find("me", "resp_unknown") is None
    assert processes.forgotten[maker] > 0


@pytest.mark.parametrize(("maker", "other"), [(0, 1), (1, 0), (1, 2)])
def test_a_response_is_cancelled_from_another_process(
    processes: Processes, recorder: Recorder, maker: int, other: int
) -> None:
    response = background_response(recorder)
    processes.runners[maker].add(response)
    found = processes.found(other, response)
    assert not found.wait(0.01)
    found.cancel()
    assert found.wait(SECONDS)
    assert found.response["status"] == response.response["status"] == "cancelled"
    assert found.input is None
    for number in range(3):
        assert processes.found(number, response).ended
        types = _types(processes.found(number, response).follow())
        assert types == ["response.created", "response.queued", "response.incomplete"]


@pytest.mark.parametrize("processes", [1], indirect=True)
@pytest.mark.parametrize(("maker", "other"), [(0, 1), (1, 0), (1, 2)])
def test_a_response_is_followed_from_another_process_while_it_is_generated(
    processes: Processes, recorder: Recorder, maker: int, other: int
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[Chunk]:
        yield from CHUNKS[:2]
        begun.set()
        assert go_on.wait(SECONDS)
        yield from CHUNKS[2:]

    response = background_response(recorder, chunks)
    processes.runners[maker].add(response)
    events = processes.found(other, response).follow()
    first = [next(events) for _ in range(3)]
    assert _types(iter(first)) == ["response.created", "response.queued", "response.in_progress"]
    assert begun.wait(SECONDS)
    later = processes.found(other, response).follow(1)
    go_on.set()
    whole, rest = [*first, *events], list(later)
    assert whole == list(response.follow())
    assert rest == whole[2:]
    assert _types(iter(whole))[-1] == "response.completed"
    assert _numbers(iter(whole)) == list(range(len(whole)))
    found = processes.found(other, response)
    assert (found.ended, found.response["status"]) == (True, "completed")


def test_long_events_come_in_several_answers(
    processes: Processes, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_response, "MOST_ANSWER_BYTES", 10)
    response = background_response(recorder, instructions="ä" * 1000)
    processes.runners[1].add(response)
    response.cancel()
    assert list(processes.found(2, response).follow()) == list(response.follow())


def test_a_follower_gets_the_end_of_a_response_that_newer_ones_have_replaced(
    processes: Processes, recorder: Recorder
) -> None:
    response = background_response(recorder)
    processes.runners[1].add(response)
    events = processes.found(2, response).follow()
    assert next(events).startswith(b"event: response.created")
    response.cancel()
    for _ in range(FOLLOWED_AFTER_END + 1):
        newer = background_response(recorder)
        processes.runners[1].add(newer)
        newer.cancel()
    assert processes.find(2, response) is None
    assert [b"", *events][-1] == list(response.follow())[-1]


def test_a_follower_is_told_where_the_process_of_a_response_ends(processes: Processes, recorder: Recorder) -> None:
    response = background_response(recorder)
    processes.runners[1].add(response)
    followers = [processes.found(number, response).follow() for number in (0, 2)]
    for events in followers:
        assert [next(events), next(events)] == response.since(0)[0]
    processes.peers.end(0)
    for events in followers:
        (last,) = events
        assert last.startswith(b"event: error\n")
        assert orjson.loads(last.split(b"data: ")[1])["sequence_number"] == 2
    for number in (0, 2):
        assert processes.find(number, response) is None
        with pytest.raises(Unavailable, match="has ended"):
            processes.runners[number].require_known("me", response.response["id"])
        processes.runners[number].require_known("you", response.response["id"])
        processes.runners[number].require_known("me", "resp_unknown")


def test_a_response_that_had_ended_before_its_process_is_in_the_store(processes: Processes, recorder: Recorder) -> None:
    response = background_response(recorder)
    processes.runners[1].add(response)
    response.cancel()
    processes.peers.hub.catch_up()
    processes.peers.end(0)
    assert processes.find(2, response) is None
    processes.runners[2].require_known("me", response.response["id"])


def test_what_waits_is_bounded_in_all_processes_together(processes: Processes, recorder: Recorder) -> None:
    sizes = [MOST_WAITING_BYTES // 2, MOST_WAITING_BYTES // 2 - 10]
    responses = [background_response(recorder, size=size) for size in sizes]
    for runner, response in zip(processes.runners, responses, strict=False):
        runner.add(response)
    processes.peers.hub.catch_up()
    for runner in processes.runners:
        runner.require_room(10)
        with pytest.raises(Unavailable, match="Too many responses wait"):
            runner.require_room(11)
    responses[1].cancel()
    processes.peers.hub.catch_up()
    processes.runners[2].require_room(11)


@pytest.mark.parametrize("processes", [2], indirect=True)
def test_all_processes_together_generate_no_more_than_one_would(processes: Processes, recorder: Recorder) -> None:
    lock, go_on = threading.Lock(), threading.Semaphore(0)
    running: list[int] = []
    most = [0]

    def generating(number: int) -> Callable[[], Iterator[Chunk]]:
        def chunks() -> Iterator[Chunk]:
            with lock:
                running.append(number)
                most[0] = max(most[0], len(running))
            assert go_on.acquire(timeout=SECONDS)
            with lock:
                running.remove(number)
            yield from CHUNKS

        return chunks

    responses = [background_response(recorder, generating(number)) for number in range(6)]
    for number, response in enumerate(responses):
        processes.runners[number % 3].add(response)
    wait_for(lambda: len(running) == 2, "two responses that are generated")
    for _ in responses:
        go_on.release()
    for response in responses:
        assert response.wait(SECONDS)
    assert most == [2]


@pytest.mark.parametrize("processes", [1], indirect=True)
def test_the_turn_of_a_process_that_ended_is_anothers(processes: Processes, recorder: Recorder) -> None:
    hangs = threading.Event()

    def hanging() -> Iterator[Chunk]:
        hangs.set()
        assert never.wait(SECONDS)
        yield from CHUNKS

    never = threading.Event()
    processes.runners[1].add(background_response(recorder, hanging))
    assert hangs.wait(SECONDS)
    waits = background_response(recorder, lambda: CHUNKS)
    processes.runners[2].add(waits)
    assert not waits.ended
    processes.peers.end(0)
    assert waits.wait(SECONDS)
    never.set()


@pytest.mark.parametrize("processes", [1], indirect=True)
def test_a_process_that_does_not_answer_has_no_turn_until_it_does(
    processes: Processes, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    asked: list[float | None] = []
    add = OwnSlotPool.add

    def counted(pool: OwnSlotPool, waiter: Waiter, *, refusable: bool) -> float | None:
        asked.append(add(pool, waiter, refusable=refusable))
        return asked[-1]

    monkeypatch.setattr(OwnSlotPool, "add", counted)

    def running() -> Iterator[Chunk]:
        begun.set()
        assert go_on.wait(SECONDS)
        yield from CHUNKS

    processes.runners[0].add(background_response(recorder, running))
    assert begun.wait(SECONDS)
    first, second = (background_response(recorder, lambda: CHUNKS) for _ in range(2))
    silent = processes.peers.hub.peers[0]
    processes.runners[1].add(first)
    processes.runners[2].add(second)
    wait_for(lambda: len(asked) == 3, "two that wait for their turn")
    silent.note_silence(True)
    go_on.set()
    assert second.wait(SECONDS)
    assert not first.ended
    silent.note_silence(False)
    assert first.wait(SECONDS)


def test_without_the_first_process_nothing_is_begun_or_found(processes: Processes, recorder: Recorder) -> None:
    processes.peers.end(0)
    runner = processes.runners[1]
    with pytest.raises(Unavailable):
        runner.require_room(1)
    with pytest.raises(Unavailable):
        runner.add(background_response(recorder))
    with pytest.raises(Unavailable):
        runner.find("me", "resp_1")
    assert runner.find("me", "no id of a response") is None
