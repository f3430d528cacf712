"""Feedback of API processes to the supervisor: written off the request's path, merged over processes, limited."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.control.feedback import (
    MAX_FAILURES,
    MAX_GENERATIONS,
    REMEMBERED_GENERATIONS,
    FeedbackReader,
    FeedbackWriter,
    FinishedGeneration,
    GenerationFailure,
    ProcessFeedback,
    feedback_folder,
)
from mistral_api.control.saved_caches import conversation_key
from mistral_api.system.files import replace_file
from mistral_api.system.processes import ProcessIdentity, identity_of
from tests.support.processes import wait_for

OURS = identity_of(os.getpid())
GONE = ProcessIdentity(OURS.pid, OURS.started - 1)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FeedbackWriter]:
    """A started writer."""
    made = FeedbackWriter(tmp_path)
    made.start()
    yield made
    made.close()


def _generation(seed: int, ended_at: float = 1.0) -> FinishedGeneration:
    return FinishedGeneration(seed, "key", True, ended_at)


def _write_file(data_dir: Path, name: str, feedback: ProcessFeedback | str) -> Path:
    """Replace the feedback file of a process with that name, as its writer does."""
    path = feedback_folder(data_dir) / f"{name}.json"
    replace_file(path, feedback if isinstance(feedback, str) else feedback.to_json())
    return path


def test_feedback_contains_the_conversation_key_and_no_session_id(writer: FeedbackWriter, tmp_path: Path) -> None:
    reader = FeedbackReader(tmp_path)
    writer.add_generation(7, "local", "secret-session", may_be_stored=True)
    writer.add_generation(8, "local", "other", may_be_stored=False)
    wait_for(lambda: len(reader.read().generations) == 2, "the feedback", 5)
    known = reader.read().generations
    assert (known[7].conversation, known[7].may_be_stored) == (conversation_key("local", "secret-session"), True)
    assert known[8].may_be_stored is False
    assert abs(known[7].ended_at - time.monotonic()) < 10
    (path,) = feedback_folder(tmp_path).glob("*.json")
    assert "secret" not in path.read_text(encoding="utf-8")
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_conversation_keys_differ_by_owner() -> None:
    assert conversation_key("ab", "c") != conversation_key("a", "bc")


def test_feedback_counts_failures_until_a_generation_succeeds(writer: FeedbackWriter, tmp_path: Path) -> None:
    reader = FeedbackReader(tmp_path)
    began = time.monotonic() - 0.1  # the clock of Windows stands still for 16 ms
    for _ in range(3):
        writer.add_failure("Compute error.")
    wait_for(lambda: len(reader.read().failures) == 3, "three failures", 5)
    assert [failure.text for failure in reader.read().failures_since(began)] == ["Compute error."] * 3
    assert reader.read().failures_since(time.monotonic()) == ()
    writer.add_success()
    wait_for(lambda: not reader.read().failures, "the end of the run", 5)
    writer.add_failure("again")
    wait_for(lambda: [each.text for each in reader.read().failures] == ["again"], "a new run", 5)


def test_feedback_file_holds_a_limited_number_of_entries(writer: FeedbackWriter, tmp_path: Path) -> None:
    for seed in range(500):
        writer.add_generation(seed, "local", f"session {seed}", may_be_stored=True)
        writer.add_failure(f"failure {seed}")
    writer.close()  # its thread may be writing now, under another name beside the file
    (path,) = feedback_folder(tmp_path).glob("*.json")
    feedback = ProcessFeedback.from_json(path.read_text(encoding="utf-8"))
    assert [each.seed for each in feedback.generations] == list(range(500 - MAX_GENERATIONS, 500))
    assert len(feedback.failures) == MAX_FAILURES


def test_success_in_one_process_clears_earlier_failures_of_all(tmp_path: Path) -> None:
    _write_file(
        tmp_path,
        "1",
        ProcessFeedback(OURS, None, (GenerationFailure(1.0, "early"), GenerationFailure(5.0, "late")), ()),
    )
    _write_file(tmp_path, "2", ProcessFeedback(OURS, 3.0, (GenerationFailure(4.0, "other"),), ()))
    assert [each.text for each in FeedbackReader(tmp_path).read().failures] == ["other", "late"]


def test_generations_of_a_dead_process_are_kept_and_its_file_is_removed(tmp_path: Path) -> None:
    path = _write_file(tmp_path, "1", ProcessFeedback(GONE, None, (GenerationFailure(5.0, "old"),), (_generation(7),)))
    reader = FeedbackReader(tmp_path)
    for _ in range(2):
        feedback = reader.read()
        assert (list(feedback.generations), feedback.failures) == ([7], ())
    assert not path.exists()


def test_feedback_reader_remembers_the_newest_generations(tmp_path: Path) -> None:
    reader = FeedbackReader(tmp_path)
    # The monotonic clock may have started a moment ago: times after now would be those of another boot.
    first = time.monotonic() - 2 * REMEMBERED_GENERATIONS
    for start in range(0, 2 * REMEMBERED_GENERATIONS, 64):
        _write_file(
            tmp_path,
            "1",
            ProcessFeedback(OURS, None, (), tuple(_generation(n, first + n) for n in range(start, start + 64))),
        )
        reader.read()
    assert sorted(reader.read().generations) == list(range(REMEMBERED_GENERATIONS, 2 * REMEMBERED_GENERATIONS))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "null",
        json.dumps({"process": [1], "succeeded_at": None, "failures": [], "generations": []}),
        json.dumps({"process": OURS, "succeeded_at": "x", "failures": [], "generations": []}),
        json.dumps({"process": OURS, "succeeded_at": None, "failures": [[1]], "generations": []}),
        json.dumps({"process": OURS, "succeeded_at": None, "failures": [], "generations": [["a", "b", True, 1]]}),
    ],
    ids=["empty", "no JSON", "a list", "null", "no process", "no time", "no failure", "no generation"],
)
def test_invalid_feedback_file_is_removed(tmp_path: Path, content: str) -> None:
    path = _write_file(tmp_path, "1", content)
    _write_file(tmp_path, "2", ProcessFeedback(OURS, None, (), (_generation(7),)))
    assert list(FeedbackReader(tmp_path).read().generations) == [7]
    assert not path.exists()


def test_full_disk_costs_one_warning_and_feedback_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_api.control.feedback.RETRY_SECONDS", 0.01)
    blocked = tmp_path / "run"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    writer = FeedbackWriter(tmp_path)
    writer.start()
    with caplog.at_level(logging.WARNING):
        writer.add_failure("Compute error.")
        wait_for(lambda: caplog.records, "a warning", 5)
        writer.flush()
    assert len(caplog.records) == 1
    blocked.unlink()
    reader = FeedbackReader(tmp_path)
    wait_for(lambda: reader.read().failures, "the feedback", 5)
    writer.close()


def test_feedback_is_empty_without_files(tmp_path: Path) -> None:
    feedback = FeedbackReader(tmp_path).read()
    assert (feedback.failures, feedback.generations) == ((), {})


def test_unreadable_feedback_file_is_skipped(tmp_path: Path) -> None:
    _write_file(tmp_path, "1", ProcessFeedback(OURS, None, (), (_generation(1, 1.0),)))
    (feedback_folder(tmp_path) / "2.json").mkdir()
    assert set(FeedbackReader(tmp_path).read().generations) == {1}
    assert (feedback_folder(tmp_path) / "2.json").exists()


def test_generations_with_a_future_time_are_ignored(tmp_path: Path) -> None:
    ahead = time.monotonic() + 1000
    _write_file(tmp_path, "1", ProcessFeedback(OURS, None, (), (_generation(1, ahead), _generation(2, 1.0))))
    assert set(FeedbackReader(tmp_path).read().generations) == {2}
