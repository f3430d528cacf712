"""A server's log and what it prints are written by threads: what takes no lines holds up nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mistral_api.system.line_writer import BATCH_LINES, LineWriter
from tests.support.processes import wait_for

CONFIGURED = """
import logging, os, sys, threading, time
from pathlib import Path
from mistral_api.system.logs import LogOptions, configure_server_log
configure_server_log(LogOptions(folder=Path(sys.argv[1])), "api")
log = logging.getLogger("mistral_api.x")
"""


class Place:
    """What lines are written to. It takes none while it is ``stuck``."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.free = threading.Event()
        self.free.set()

    def write(self, lines: Sequence[str]) -> None:
        """Take lines, as soon as it can."""
        self.free.wait(30)
        self.lines += lines


@contextmanager
def _writer(most_waiting: int = 1000) -> Iterator[LineWriter]:
    writer = LineWriter("log-test", "the test", most_waiting)
    try:
        yield writer
    finally:
        writer.close()


def test_lines_are_written_in_their_order_by_another_thread() -> None:
    place, threads = Place(), set()

    def line(number: int) -> str:
        threads.add(threading.current_thread().name)
        return f"{number}"

    with _writer() as writer:
        for number in range(3 * BATCH_LINES):
            writer.put(place.write, lambda number=number: line(number))  # type: ignore[misc]
        assert writer.close()
    assert place.lines == [str(number) for number in range(3 * BATCH_LINES)]
    assert threads == {"log-test"}


def test_line_that_cannot_be_made_costs_the_others_nothing() -> None:
    place = Place()
    with _writer() as writer:
        writer.put(Place().write, lambda: str(1 // 0))
        writer.put(place.write, "after")
        assert writer.close()
    assert place.lines == ["after"]


def test_line_that_cannot_be_made_is_told_of_between_its_neighbours() -> None:
    place = Place()
    with _writer() as writer:
        writer.put(place.write, "before")
        writer.put(place.write, lambda: str(1 // 0))
        writer.put(place.write, "after")
        assert writer.close()
    assert place.lines == ["before", "a line cannot be shown: ZeroDivisionError\n", "after"]


def test_line_after_the_end_is_written_at_once() -> None:
    place = Place()
    with _writer() as writer:
        writer.put(place.write, "before")
        assert writer.close()
        writer.put(place.write, "after")
        assert place.lines == ["before", "after"]


def test_lines_beyond_the_queue_are_dropped_and_counted_once_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    with _writer(most_waiting=10) as writer:
        place.free.clear()
        writer.put(place.write, "first")
        for number in range(50):
            writer.put(place.write, str(number))
        assert not writer.close(0.01)
        assert not caplog.records
        place.free.set()
        wait_for(lambda: caplog.records, "the line about them")
    dropped = 51 - len(place.lines)
    assert place.lines == ["first", *map(str, range(50))][: len(place.lines)]
    assert dropped in (40, 41)
    assert caplog.messages == [f"the test took no lines for too long: {dropped} lines are missing there"]


if sys.platform != "win32":

    def test_forked_child_writes_its_own_lines_and_no_line_of_its_parent() -> None:
        place, (ours, theirs) = Place(), os.pipe()

        def write(lines: Sequence[str]) -> None:
            os.write(theirs, "".join(lines).encode())

        with _writer() as writer:
            place.free.clear()
            writer.put(place.write, "stuck")
            writer.put(write, "parent;")
            child = os.fork()
            if child == 0:
                writer.put(write, "child;")
                os._exit(0 if writer.close() else 1)
            assert os.waitpid(child, 0)[1] == 0
            place.free.set()
            assert writer.close()
        assert os.read(ours, 100) == b"child;parent;"
        os.close(ours)
        os.close(theirs)


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CONFIGURED + code, str(folder)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("sys.exit(3)", 3), ("raise RuntimeError('crash')", 1), ("", 0), ("raise KeyboardInterrupt", None)],
)
def test_what_is_logged_and_printed_before_an_end_comes_in_its_order(
    code: str, exit_code: int | None, tmp_path: Path
) -> None:
    done = _run(
        "log.info('one'); print('two'); print('three', file=sys.stderr); log.info('four %s', [4])\n"
        f"print('five', end='')\n{code}",
        tmp_path,
    )
    if exit_code is not None:
        assert done.returncode == exit_code
    lines = [line.rpartition(": ")[2] for line in done.stdout.splitlines() if "unexpected error" not in line]
    # The end of Python hands over what has no line break.
    assert lines[:4] == ["one", "two", "three", "four [4]"]
    assert "five" in done.stdout
    assert ("unexpected error: RuntimeError: crash" in done.stdout) == ("crash" in code)
    file = (tmp_path / "api.log").read_text()
    assert [line.rpartition(": ")[2] for line in file.splitlines()][:2] == ["one", "four [4]"]


def test_value_that_changes_after_the_call_is_logged_as_it_was(tmp_path: Path) -> None:
    _run("items = [1]\nfor _ in range(100):\n    log.info('%s', items)\nitems.clear()", tmp_path)
    assert (tmp_path / "api.log").read_text().count("x: [1]\n") == 100


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_full_pipe_holds_up_neither_who_logs_nor_the_end(tmp_path: Path) -> None:
    code = """
for number in range(20_000):
    log.info("%d " + "x" * 50, number)
print("printed", file=sys.stderr, flush=True)
Path(sys.argv[1], "done").touch()
"""
    ours, theirs = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", CONFIGURED + code, str(tmp_path)], stdout=theirs, stderr=theirs)
    try:
        assert process.wait(30) == 0
        assert (tmp_path / "done").exists()
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)
    assert " INFO mistral_api.x: 0 xxx" in (tmp_path / "api.log").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_console_that_is_read_again_says_how_many_lines_are_missing(tmp_path: Path) -> None:
    code = """
for number in range(30_000):
    log.info("%d " + "x" * 50, number)
    if number % 1000 == 0:
        time.sleep(0.05)  # the file takes them all: what it said of its own would be missing on the console too
print(1, file=open(sys.argv[1] + "/done", "w"), flush=True)
input()
"""
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", CONFIGURED + code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        wait_for((tmp_path / "done").exists, "the end of the lines")
        text = ""
        with open(ours, encoding="utf-8") as console:
            for line in console:
                text += line
                if "the console took no lines" in line:
                    break
            process.communicate(b"\n", timeout=30)
    finally:
        process.kill()
        process.wait()
    lines = text.splitlines()
    missing = int(lines[-1].split("too long: ")[1].split()[0])
    assert len([line for line in lines if "xxx" in line]) == 30_000 - missing
    assert missing > 0
    assert "the console took no lines" in (tmp_path / "api.log").read_text()
