"""What one process deletes all forget: the API processes of a server before the deletion is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.conversations.deletion_notices import Deleted, DeletionNotices
from mistral_api.conversations.deletions import Deletions
from mistral_api.ipc.siblings import ALONE, Hub, Siblings
from tests.support.peers import pairs
from tests.support.processes import wait_for

CONVERSATION, RESPONSE = Deleted("ann", "session"), Deleted("bob", response_id="resp_1")


def _noting(folder: Path, siblings: Siblings) -> tuple[Deletions, list[Deleted | float]]:
    """Return what tells of deletions, and what it has memory forget."""
    deletions, forgotten = Deletions(DeletionNotices(folder), siblings), list[Deleted | float]()
    deletions.on_deleted, deletions.on_retention = forgotten.append, forgotten.append
    return deletions, forgotten


def test_another_process_on_the_same_folder_forgets_when_it_looks(tmp_path: Path) -> None:
    (ours, forgotten), (theirs, forgotten_there) = _noting(tmp_path, ALONE), _noting(tmp_path, ALONE)
    ours.tell(CONVERSATION)
    ours.tell(RESPONSE)
    DeletionNotices(tmp_path).add_retention(5.0)
    assert set(forgotten) == {CONVERSATION, RESPONSE}
    theirs.forget_deleted()
    assert forgotten_there == [CONVERSATION, RESPONSE, 5.0]


def test_what_comes_after_a_deletion_is_not_taken_away(tmp_path: Path) -> None:
    deletions, forgotten = _noting(tmp_path, ALONE)
    deletions.tell(CONVERSATION)
    forgotten.clear()
    deletions.forget_deleted()
    assert forgotten == []


def test_all_processes_of_a_server_forget(tmp_path: Path) -> None:
    hub = Hub()
    _, in_first = _noting(tmp_path, Siblings(hub=hub))
    with pairs() as (inner, outer, start):
        (deleting, in_deleting), (_, in_other) = (_noting(tmp_path, Siblings(first=end)) for end in outer)
        for peer in inner:
            hub.join(peer)
        start()
        deleting.tell(CONVERSATION)
        assert CONVERSATION in in_first
        assert CONVERSATION in in_deleting
        wait_for(lambda: CONVERSATION in in_other, "the other process to forget it, without a request", 10)


def test_without_the_first_process_the_others_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pairs(1) as (_, outer, start):
        start()
        outer[0].close()
        deleting, forgotten = _noting(tmp_path, Siblings(first=outer[0]))
        other, forgotten_there = _noting(tmp_path, ALONE)
        deleting.tell(RESPONSE)
        other.forget_deleted()
    assert forgotten == forgotten_there == [RESPONSE]
    assert "may still use what was deleted" in caplog.text


def test_a_folder_that_cannot_be_written_costs_others_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deletions, forgotten = _noting(tmp_path / "run", ALONE)
    (tmp_path / "run").write_text("no folder")
    deletions.tell(CONVERSATION)
    assert CONVERSATION in forgotten
    assert "may still use what was deleted" in caplog.text
