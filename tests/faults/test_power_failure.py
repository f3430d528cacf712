"""The power fails while requests are recorded: what is there afterwards, with JOURNAL_SYNC=full and with normal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mistral_api.recording.backlog import Backlog
from mistral_api.recording.journal import JOURNAL_FILE, prepare_journal
from mistral_api.recording.journal_repair import find_damage
from tests.support.power_failure import FailingDisk, failing_disk
from tests.support.processes import wait_for

WRITTEN = 300
SECONDS = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    """A disk whose power can fail."""
    with failing_disk(tmp_path) as made:
        if isinstance(made, str):
            pytest.skip(made)
        yield made


def _write_until_the_power_fails(disk: FailingDisk, sync: str) -> list[int]:
    """Return the positions of the exchanges that were said to be written."""
    command = [sys.executable, "-m", "tests.support.journal_writer_process", str(disk.folder), sync]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        try:
            lines = [writer.stdout.readline() for _ in range(WRITTEN)]
            # An fsync that is under way when ext4 is cut off may return as if all were written, for plain writes too.
            _stand_still(writer)
            disk.fail()
            # Also what it says afterwards: an answer that is given then has to be on the disk as well.
            writer.send_signal(signal.SIGCONT)
            rest, _ = writer.communicate(timeout=SECONDS)
        finally:
            writer.kill()
    disk.unmount()
    disk.mount()
    return [int(line) for line in (*lines, *rest.splitlines(keepends=True)) if line.endswith(b"\n")]


def _stand_still(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and wait until none of its threads is in the middle of a system call any more."""
    process.send_signal(signal.SIGSTOP)
    threads = Path("/proc", str(process.pid), "task")
    # The state stands behind the name (proc_pid_stat(5)).
    wait_for(
        lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads.glob("*/stat")),
        "a process that stands still",
    )


def _ended(folder: Path) -> list[int]:
    with closing(Backlog(prepare_journal(folder, alone=True))) as backlog:
        return [entry.position for entry in backlog.oldest_entries(1 << 20, 1 << 30) if entry.exchange().answers]


def test_with_full_nothing_is_lost_that_was_said_to_be_written(disk: FailingDisk) -> None:
    written = _write_until_the_power_fails(disk, "full")
    assert len(written) >= WRITTEN
    assert find_damage(disk.folder / JOURNAL_FILE) is None
    assert set(written) <= set(_ended(disk.folder))


def test_with_normal_the_last_moments_are_lost_and_nothing_is_damaged(disk: FailingDisk) -> None:
    # Else there would not even be a journal on the disk.
    prepare_journal(disk.folder, alone=True)
    disk.unmount()
    disk.mount()
    written = _write_until_the_power_fails(disk, "normal")
    assert find_damage(disk.folder / JOURNAL_FILE) is None
    assert len(_ended(disk.folder)) < len(written)
    assert not list(disk.folder.glob("*damaged*"))
