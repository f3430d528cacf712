"""Log files: bounded, one writer each, and no failure of a disk reaches who logs."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mistral_api.system.log_file import MOST_WRITERS, LogFileHandler, RotatingFile
from mistral_api.system.log_format import formatter


def _record(message: str) -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, __file__, 1, message, (), None)


def _handler(folder: Path, warnings: list[str]) -> LogFileHandler:
    handler = LogFileHandler(folder, "api", lambda text, *arguments: warnings.append(text % arguments))
    handler.setFormatter(formatter("text", stacks=False))
    return handler


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_full_file_is_set_aside_and_the_oldest_one_goes(tmp_path: Path) -> None:
    with closing(RotatingFile(tmp_path / "api.log", most_bytes=100, old_files=2)) as file:
        for number in range(50):
            file.write(b"line %02d\n" % number)
        file.write(b"last\n")
    assert sorted(_sizes(tmp_path)) == ["api.log", "api.log.1", "api.log.2"]
    assert max(_sizes(tmp_path).values()) <= 108
    assert (tmp_path / "api.log").read_text().endswith("last\n")
    kept = [(tmp_path / f"api.log{end}").read_text() for end in (".2", ".1", "")]
    assert "line 00" not in "".join(kept)


def test_file_that_another_program_has_open_is_written_on_and_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    with closing(RotatingFile(tmp_path / "api.log", most_bytes=100)) as file:
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", refuse)
            for number in range(100):
                file.write(b"line %02d\n" % number)
            file.write(b"the last one\n")
        assert (tmp_path / "api.log").stat().st_size <= 220
        assert (tmp_path / "api.log").read_text().endswith("the last one\n")
        for _ in range(20):
            file.write(b"later on\n")
    assert (tmp_path / "api.log.1").exists()


def test_processes_on_one_folder_have_a_file_each(tmp_path: Path) -> None:
    warnings: list[str] = []
    handlers = [_handler(tmp_path, warnings) for _ in range(MOST_WRITERS + 1)]
    for number, handler in enumerate(handlers):
        handler.emit(_record(f"number {number}"))
    assert (tmp_path / "api.log").read_text().endswith("number 0\n")
    assert (tmp_path / "api-2.log").read_text().endswith("number 1\n")
    assert len(list(tmp_path.glob("*.log"))) == MOST_WRITERS
    assert [text.split(" write")[0] for text in warnings] == [f"{MOST_WRITERS} processes"]
    handlers[0].close()
    with closing(_handler(tmp_path, warnings)) as next_one:
        next_one.emit(_record("the next process"))
    assert (tmp_path / "api.log").read_text().count("\n") == 2
    for handler in handlers[1:]:
        handler.close()


if sys.platform != "win32":

    def test_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
        with closing(_handler(tmp_path, [])) as handler:
            handler.emit(_record("parent"))
            child = os.fork()
            if child == 0:
                handler.emit(_record("child"))
                handler.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            with closing(_handler(tmp_path, [])) as another:
                another.emit(_record("another"))
            handler.emit(_record("parent again"))
        assert "child" not in (tmp_path / "api.log").read_text()
        assert [line.split(": ")[1] for line in (tmp_path / "api-2.log").read_text().splitlines()] == [
            "child",
            "another",
        ]


def test_full_disk_is_told_and_costs_nothing_but_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    write, room = os.write, [40]

    def write_while_there_is_room(descriptor: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(len(data), room[0])
        room[0] -= taken
        return write(descriptor, data[:taken])

    with closing(_handler(tmp_path / "logs", warnings)) as handler:
        monkeypatch.setattr(os, "write", write_while_there_is_room)
        for _ in range(3):
            handler.emit(_record("meanwhile"))
        room[0] = 10_000
        handler.emit(_record("afterwards"))
    assert len(warnings) == 3
    assert warnings[2].endswith("cannot be written: No space left on device; 3 lines are missing")
    torn, whole = (tmp_path / "logs" / "api.log").read_text().splitlines()
    assert (len(torn), whole.partition(": ")[2]) == (40, "afterwards")


def test_line_that_is_no_text_of_utf_8_is_written_with_escapes(tmp_path: Path) -> None:
    with closing(_handler(tmp_path / "logs", [])) as handler:
        handler.write(["before\n", "half of a pair: \ud83d\n", "after\n"])
    assert (tmp_path / "logs" / "api.log").read_text().splitlines() == ["before", "half of a pair: \\ud83d", "after"]


def test_folder_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "logs").write_text("a file where the folder should be")
    with closing(_handler(tmp_path / "logs", warnings)) as handler:
        handler.emit(_record("before"))
        (tmp_path / "logs").unlink()
        handler.emit(_record("afterwards"))
    assert len(warnings) == 1
    assert (tmp_path / "logs" / "api.log").read_text().endswith("afterwards\n")
