"""Whether other processes serve requests: one request looks for all, beside the event loop."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path

from mistral_api.recording.deliverer_link import DelivererLink
from mistral_api.recording.other_processes import SIBLING, OtherProcesses
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from tests.support.event_loops import running_loop

SECONDS = 10.0


def test_one_task_looks_for_all_beside_the_loop() -> None:
    may_end, looks = threading.Event(), list[str]()

    def look() -> bool:
        looks.append(threading.current_thread().name)
        may_end.wait(SECONDS)
        return False

    others = OtherProcesses(look)
    with running_loop() as loop:
        results: list[Future[bool]] = [Future() for _ in range(8)]
        for result in results:
            loop.spawn(lambda result=result: result.set_result(others.seen()))  # type: ignore[misc]
        loop.call_soon(may_end.set)  # the loop goes on meanwhile
        assert [result.result(SECONDS) for result in results] == [False] * 8
    assert len(looks) == 1
    assert looks[0].startswith("event-loop-aside")
    assert not others.seen()


def test_a_disk_that_fails_may_hide_others() -> None:
    def look() -> bool:
        raise OSError("no disk")

    assert OtherProcesses(look).seen()


def test_siblings_are_no_strangers(tmp_path: Path) -> None:
    def recorder(role: str = "") -> Recorder:
        made = Recorder(tmp_path, RecordingPolicy(), lambda path, _lock: DelivererLink(path.parent), role)
        made.start()
        return opened.enter_context(closing(made))

    with ExitStack() as opened:
        recorder(SIBLING)
        first = recorder()
        recorder(SIBLING)
        assert not first.other_processes.seen()
        assert recorder().other_processes.seen()
