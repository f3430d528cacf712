"""Processes on one DATA_DIR tell each other what they have deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.conversations import deletion_notices
from mistral_api.conversations.deletion_notices import Deleted, DeletionNotices


def test_what_was_added_is_read_once_by_every_process(tmp_path: Path) -> None:
    ours, theirs = DeletionNotices(tmp_path), DeletionNotices(tmp_path)
    assert theirs.read_new() == []
    ours.add("ann", "one")
    ours.add("bob", "zwei\nLinien")
    assert theirs.read_new() == [Deleted("ann", "one"), Deleted("bob", "zwei\nLinien")]
    assert theirs.read_new() == []
    theirs.add("ann", "three")
    assert ours.read_new() == [Deleted("ann", "one"), Deleted("bob", "zwei\nLinien"), Deleted("ann", "three")]


def test_a_deleted_answer_is_told_with_the_id_of_a_response(tmp_path: Path) -> None:
    ours, theirs = DeletionNotices(tmp_path), DeletionNotices(tmp_path)
    ours.add_answer("ann")
    ours.add_answer("ann", "resp_1")
    assert theirs.read_new() == [Deleted("ann"), Deleted("ann", response_id="resp_1")]


def test_what_the_retention_has_deleted_is_told_by_its_moment(tmp_path: Path) -> None:
    ours, theirs = DeletionNotices(tmp_path), DeletionNotices(tmp_path)
    ours.add("ann", "one")
    ours.add_retention(1_700_000_000.5)
    assert theirs.read_new() == [Deleted("ann", "one"), 1_700_000_000.5]


def test_a_new_process_reads_nothing_of_what_was_deleted_before(tmp_path: Path) -> None:
    DeletionNotices(tmp_path).add("ann", "one")
    assert DeletionNotices(tmp_path).read_new() == []


def test_a_large_file_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_notices, "MAX_BYTES", 100)
    ours, theirs = DeletionNotices(tmp_path), DeletionNotices(tmp_path)
    for number in range(50):
        ours.add("ann", str(number))
        assert theirs.read_new() == [Deleted("ann", str(number))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 200
