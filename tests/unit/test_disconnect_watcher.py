"""The watcher notices that a client has left whenever a call was added, and rests between calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mistral_api.upstream.cancellation import WATCH_INTERVAL_SECONDS, DisconnectWatcher, UpstreamCall
from tests.support.processes import wait_for


@pytest.fixture
def watcher() -> Iterator[DisconnectWatcher]:
    """A watcher, closed at the end."""
    watching = DisconnectWatcher()
    yield watching
    watching.close()


class _Client:
    """A client that leaves when it is told, and counts how often it was looked at."""

    def __init__(self) -> None:
        self.gone = False
        self.looks = 0

    def is_gone(self) -> bool:
        self.looks += 1
        return self.gone


def _leaves(watcher: DisconnectWatcher) -> None:
    client = _Client()
    call = UpstreamCall(client.is_gone)
    watcher.add(call)
    client.gone = True
    wait_for(lambda: call.reason == "client", "a call that is cancelled")
    watcher.remove(call)


def test_client_that_leaves_is_noticed_also_after_a_rest(watcher: DisconnectWatcher) -> None:
    for pause in (0.0, WATCH_INTERVAL_SECONDS / 2, WATCH_INTERVAL_SECONDS * 3):
        time.sleep(pause)
        _leaves(watcher)


def test_watcher_rests_while_no_call_is_in_flight(watcher: DisconnectWatcher) -> None:
    client = _Client()
    call = UpstreamCall(client.is_gone)
    watcher.add(call)
    wait_for(lambda: client.looks > 1, "a look at the client")
    watcher.remove(call)
    looked = client.looks
    wait_for(lambda: not watcher._is_busy.is_set(), "a rest")
    assert client.looks <= looked + 1  # one look may have been under way


def test_calls_of_many_threads_are_all_watched(watcher: DisconnectWatcher) -> None:
    threads = [threading.Thread(target=_leaves, args=(watcher,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watcher.wait_until_idle(0)


def test_waiting_until_idle_ends_with_the_last_call(watcher: DisconnectWatcher) -> None:
    call = UpstreamCall()
    watcher.add(call)
    assert not watcher.wait_until_idle(0.05)
    remover = threading.Timer(0.1, watcher.remove, [call])
    remover.start()
    assert watcher.wait_until_idle(20)
    remover.join()


def test_closing_cancels_what_is_in_flight_and_ends_the_thread() -> None:
    before = set(threading.enumerate())
    watcher, call = DisconnectWatcher(), UpstreamCall()
    watcher.add(call)
    watcher.close()
    assert call.reason == "shutdown"
    assert not any(thread.name == "disconnect-watcher" for thread in set(threading.enumerate()) - before)
