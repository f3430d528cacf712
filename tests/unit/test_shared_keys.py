"""Whoever changes a key has all API processes of the server read the keys."""

from __future__ import annotations

import sys
from typing import cast

import pytest

from mistral_api.api_keys.key_watcher import KeyWatcher
from mistral_api.api_keys.shared_keys import SharedKeys
from mistral_api.ipc.siblings import ALONE, Hub, Siblings
from tests.support.peers import pairs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")


class _Watcher:
    """Counts the reads."""

    def __init__(self) -> None:
        self.reads = 0

    def refresh(self) -> None:
        self.reads += 1


def _shared(siblings: Siblings) -> tuple[SharedKeys, _Watcher]:
    watcher = _Watcher()
    return SharedKeys(cast(KeyWatcher, watcher), siblings), watcher


def test_one_process_alone_reads_them_itself() -> None:
    keys, watcher = _shared(ALONE)
    keys.refresh()
    assert watcher.reads == 1


@pytest.mark.parametrize("changing", [0, 1])
def test_all_have_read_them_when_the_change_is_answered(changing: int) -> None:
    hub = Hub()
    shared = [_shared(Siblings(hub=hub))]
    with pairs() as (inner, outer, start):
        shared += [_shared(Siblings(first=end)) for end in outer]
        for peer in inner:
            hub.join(peer)
        start()
        shared[changing][0].refresh()
        assert [watcher.reads for _, watcher in shared] == [1, 1, 1]
        outer[1].close()
        shared[changing][0].refresh()
        assert [watcher.reads for _, watcher in shared] == [2, 2, 1]
