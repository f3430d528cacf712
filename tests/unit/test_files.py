"""Files are replaced and removed also where Windows refuses for a moment, since another process has them open."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mistral_api.security.audit_file import AuditFile
from mistral_api.system import files
from mistral_api.system.files import ReplacedFile, move_file, remove_file, replace_file
from tests.support.processes import wait_for

REFUSALS = 3


def _refusing(change: Callable[..., object], times: int) -> Callable[..., object]:
    """Return a function that the system refuses so many times, as Windows does while a file is open."""
    left = [times]

    def refuse(*arguments: object, **options: object) -> object:
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return change(*arguments, **options)

    return refuse


def test_file_that_is_open_for_a_moment_is_replaced_and_removed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RETRY_SECONDS", 5.0)
    monkeypatch.setattr(os, "replace", _refusing(os.replace, REFUSALS))
    replace_file(tmp_path / "status.json", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    monkeypatch.setattr(Path, "unlink", _refusing(Path.unlink, REFUSALS))
    remove_file(tmp_path / "status.json")
    remove_file(tmp_path / "status.json")
    assert list(tmp_path.iterdir()) == []


def test_file_that_stays_open_is_left_as_it_was_and_no_new_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "status.json", "one")
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(os, "replace", _refusing(os.replace, 1000))
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "status.json", "two")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere an open file can be replaced")
def test_file_that_another_thread_has_open_is_replaced_when_that_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    replace_file(path, "one")
    opened = threading.Event()

    def read() -> None:
        with path.open(encoding="utf-8"):
            opened.set()
            time.sleep(0.3)

    thread = threading.Thread(target=read)
    thread.start()
    opened.wait(5)
    with pytest.raises(PermissionError):
        os.replace(tmp_path / "status.json", tmp_path / "other")
    move_file(path, tmp_path / "other")
    thread.join()
    assert (tmp_path / "other").read_text(encoding="utf-8") == "one"


def test_appended_lines_are_the_bytes_that_were_given(tmp_path: Path) -> None:
    """A file of ``os.open`` on Windows makes two bytes of each line break unless it is opened as binary."""
    audit = AuditFile(tmp_path / "audit.jsonl")
    audit.append(b"one")
    audit.append(b"two")
    assert (tmp_path / "audit.jsonl").read_bytes() == b"one\ntwo\n"


def test_file_that_was_asked_for_a_moment_ago_is_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    at_once = ReplacedFile(path, lambda: path.read_text(encoding="utf-8"), "absent")
    seldom = ReplacedFile(path, lambda: path.read_text(encoding="utf-8"), "absent", unasked_seconds=1000.0)
    soon = ReplacedFile(path, lambda: path.read_text(encoding="utf-8"), "absent", unasked_seconds=1e-9)
    assert (at_once.current(), seldom.current(), soon.current()) == ("absent", "absent", "absent")
    replace_file(path, "one")
    assert (at_once.current(), seldom.current()) == ("one", "absent")
    wait_for(lambda: soon.current() == "one", "the next step of the clock")  # which takes 16 ms on Windows
    remove_file(path)
    assert at_once.current() == "absent"
    wait_for(lambda: soon.current() == "absent", "the next step of the clock")
