"""A process counts as dead exactly when the system has released its lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mistral_api.system.process_lock import ProcessLock

_PROGRAM = (
    "import sys; from pathlib import Path; from mistral_api.system.process_lock import ProcessLock\n"
    "lock = ProcessLock(Path(sys.argv[1])); print(lock.name, flush=True); sys.stdin.read()\n"
)


def test_process_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    mine = ProcessLock(tmp_path)
    assert mine.is_alone()
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert not mine.has_ended(name)
        assert not mine.is_alone()
        other.kill()
        other.wait(timeout=10)
    assert mine.has_ended(name)
    assert mine.is_alone()
    mine.close()


def test_closed_process_lock_has_ended_and_the_own_lock_never_has(tmp_path: Path) -> None:
    mine, other = ProcessLock(tmp_path), ProcessLock(tmp_path)
    assert not mine.has_ended(other.name)
    other.close()
    assert mine.has_ended(other.name)
    assert not mine.has_ended(mine.name)
    mine.close()
    assert list((tmp_path / "processes").iterdir()) == []
