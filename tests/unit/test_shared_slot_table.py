"""API processes share what they know of the slots: an owner's prompts are found again, and nobody reads another's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mistral_api.errors import Unavailable
from mistral_api.event_loop.loop import EventLoop
from mistral_api.upstream.prompt_pieces import prompt_pieces
from mistral_api.upstream.slot_owners import PlacedRequest
from mistral_api.upstream.slot_table import PromptSource
from tests.support.event_loops import run_as_task, running_loop
from tests.support.slots import Processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")


class Shared:
    """Three API processes before a model server of two slots; the first one has the table."""

    def __init__(self, loop: EventLoop, *, hangs: bool = False) -> None:
        self.processes = Processes(loop, 2, hangs=hangs)
        self.released = 0

    def place(self, process: int, owner: str, *texts: str, **fields: Any) -> PlacedRequest:
        """Have a process, from 0, place a request."""
        request: Any = {"messages": [{"role": "user", "content": text} for text in texts], **fields}
        return self.processes.owners[process].place(PromptSource(owner, "session"), request, 1, self._release)

    def begin(self, process: int, owner: str, *texts: str, **fields: Any) -> PlacedRequest:
        """The same; the model server begins to answer it."""
        placed = self.place(process, owner, *texts, **fields)
        placed.note_answer()
        return placed

    def run(self, process: int, owner: str, *texts: str, **fields: Any) -> tuple[int | None, bool]:
        """Return the slot that a request gets, and whether it may use the cache there."""
        placed = self.begin(process, owner, *texts, **fields)
        placed.end()
        return _choice(placed)

    def _release(self) -> None:
        self.released += 1


def _choice(placed: PlacedRequest) -> tuple[int | None, bool]:
    return placed.request.get("id_slot"), placed.request.get("cache_prompt", True)


@pytest.fixture
def shared() -> Iterator[Shared]:
    with running_loop() as loop:
        made = Shared(loop)
        yield made
        made.processes.close()


def test_conversation_goes_on_in_its_slot_whichever_process_has_it(shared: Shared) -> None:
    assert shared.run(1, "ada", "a") == (0, False)
    assert shared.run(2, "ada", "a", "b", "c") == (0, True)
    assert shared.run(0, "bob", "a", "b", "c") == (1, False)
    assert shared.run(1, "bob", "a", "b", "c", "d") == (1, True)
    assert shared.run(0, "ada", "a", "b", "c", "e") == (0, True)
    assert shared.released == 5


def test_tasks_place_requests_too(shared: Shared) -> None:
    with running_loop() as loop:
        assert run_as_task(loop, lambda: shared.run(1, "ada", "x" * 500_000)) == (0, False)
        assert run_as_task(loop, lambda: shared.run(2, "ada", "x" * 500_000)) == (0, True)


def test_slot_of_another_owner_is_taken_without_its_cache(shared: Shared) -> None:
    for process, owner in enumerate(("ada", "bob", "eve", "ada")):
        assert shared.run(process % 3, owner, "the same text")[1] is False
    assert shared.run(1, "ada", "the same text")[1] is True


def test_slot_is_nobodys_after_a_request_that_was_not_answered(shared: Shared) -> None:
    shared.run(1, "ada", "the same text")
    other = shared.begin(0, "eve", "another text")
    refused = shared.place(1, "bob", "far too long")
    assert _choice(refused) == (0, False)
    refused.end()
    assert shared.run(2, "bob", "the same text") == (0, False)
    assert shared.run(1, "bob", "the same text") == (0, True)
    other.end()


def test_running_request_keeps_its_slot(shared: Shared) -> None:
    shared.run(1, "ada", "a")
    first = shared.begin(2, "ada", "a", "b")
    assert _choice(first) == (0, True)
    assert shared.run(0, "ada", "a", "b") == (1, False)
    first.end()
    first.end()
    assert shared.released == 3
    assert shared.run(1, "ada", "a", "b")[1] is True


@pytest.mark.parametrize("fields", [{"id_slot": 1}])
def test_request_that_may_run_anywhere_uses_no_cache_and_leaves_none(shared: Shared, fields: dict[str, Any]) -> None:
    shared.run(0, "ada", "a")
    placed = shared.begin(1, "bob", "a", **fields)
    assert _choice(placed) == (1, False)
    assert shared.run(2, "ada", "a") == (None, False)
    placed.end()
    assert shared.run(2, "ada", "a")[1] is False
    assert shared.run(1, "ada", "a")[1] is True


def test_requests_of_the_only_owner_leave_nothing_known_until_the_last_has_ended(shared: Shared) -> None:
    shared.run(0, "ada", "a")
    shared.processes.several_owners = False
    running = [shared.begin(1, "ada", "a") for _ in range(2)]
    assert _choice(running[0]) == (None, True)
    shared.processes.several_owners = True
    assert shared.run(0, "ada", "a") == (None, False)
    running[0].end()
    running[0].end()
    assert shared.run(2, "ada", "a") == (None, False)
    running[1].end()
    assert shared.run(0, "ada", "a")[1] is False
    assert shared.run(1, "ada", "a")[1] is True
    assert shared.released == 7


def test_embedding_in_any_slot_leaves_nothing_known(shared: Shared) -> None:
    shared.run(0, "ada", "a")
    with shared.processes.owners[1].unplaced():
        assert shared.run(2, "ada", "a") == (None, False)
    assert shared.run(2, "ada", "a")[1] is False
    assert shared.run(0, "ada", "a")[1] is True
    shared.processes.several_owners = False
    with shared.processes.owners[2].unplaced():
        shared.processes.several_owners = True
        assert shared.run(0, "ada", "a") == (None, False)
    assert shared.run(2, "ada", "a")[1] is False


def test_requests_of_the_only_owner_end_with_their_process(shared: Shared) -> None:
    shared.processes.several_owners = False
    shared.begin(2, "ada", "a")
    shared.processes.several_owners = True
    assert shared.run(0, "ada", "a") == (None, False)
    shared.processes.outer[1].close()
    shared.processes.settle()
    assert shared.run(0, "ada", "a")[0] is not None
    assert shared.run(1, "ada", "a")[1] is True


def test_the_slots_of_a_process_that_ended_are_free(shared: Shared) -> None:
    assert _choice(shared.begin(1, "ada", "a")) == (0, False)
    assert _choice(shared.begin(1, "bob", "b")) == (1, False)
    assert shared.run(0, "ada", "a", "b") == (None, False)
    shared.processes.outer[0].close()
    shared.processes.settle()
    assert shared.run(2, "ada", "a", "b")[0] is not None


def test_a_model_server_that_only_one_process_knows_to_be_another_one_is_used_without_its_cache(shared: Shared) -> None:
    shared.run(0, "ada", "a")
    shared.processes.model_server[1] = "2"
    assert shared.run(1, "ada", "a") == (None, False)
    shared.processes.model_server[0] = "2"
    assert shared.run(1, "ada", "a")[1] is False
    assert shared.run(1, "ada", "a")[1] is True


def test_without_the_first_process_requests_of_several_owners_are_refused(shared: Shared) -> None:
    shared.run(1, "ada", "a")
    shared.processes.hub.close()
    shared.processes.settle()
    with pytest.raises(Unavailable):
        shared.run(1, "ada", "a")
    with pytest.raises(Unavailable), shared.processes.owners[1].unplaced():
        pass
    shared.processes.several_owners = False
    assert shared.run(1, "ada", "a") == (None, True)
    assert shared.released == 2


def test_a_task_that_ends_while_it_asks_leaves_nothing_behind() -> None:
    with running_loop() as loop:
        shared, ended = Shared(loop, hangs=True), threading.Event()

        def place() -> None:
            try:
                shared.place(1, "ada", "a")
            finally:
                ended.set()

        with running_loop() as ending:
            ending.spawn(place)
            run_as_task(ending, lambda: None)
        assert ended.is_set()
        assert not shared.released  # the task is ended in its wait: whoever began it releases what it has
        shared.processes.go_on()
        shared.processes.settle()
        assert [_choice(shared.begin(2, "bob", text))[0] for text in "bc"] == [1, 0]
        shared.processes.close()


def test_a_model_server_with_a_cache_of_its_own_is_asked_to_use_none(shared: Shared) -> None:
    shared.processes.has_prompt_cache = True
    for process in (0, 1, 1):
        assert shared.run(process, "ada", "a")[1] is False


def test_pieces_of_a_prompt_are_the_same_in_all_processes() -> None:
    """As they would not be by Python's own hashes of texts."""
    messages: list[Any] = [{"role": "user", "content": "Hello"}, {"role": "user", "content": [1]}]
    assert [tuple(piece) for piece in prompt_pieces({"messages": messages})] == [
        (2375276105, 0),
        (1890569092, 7),
        (367402944, 29),
    ]
