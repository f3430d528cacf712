"""An API process that is another program than the first one of its server does not serve."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mistral_api.serving.connection_shares import new_shares_file
from mistral_api.serving.program_version import program_version
from mistral_api.system.exit_codes import ExitCode
from mistral_api.version import VERSION
from tests.support.processes import clean_environment


def test_version_is_that_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    module = tmp_path / "room" / "module.py"
    module.write_text("A = 1\n")
    before = program_version(tmp_path)
    assert before.startswith(f"{VERSION}+")
    os.utime(module, (0, 0))
    (tmp_path / "room" / "module.pyc").write_text("")
    assert program_version(tmp_path) == before
    module.write_text("A = 2\n")
    assert program_version(tmp_path) != before


@pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")
def test_process_of_another_version_says_so_and_does_not_serve(data_dir: Path) -> None:
    ours, theirs = socket.socketpair()
    shares = new_shares_file(2)
    with ours, theirs, closing(socket.create_server(("127.0.0.1", 0))) as listener:
        numbers = (listener.fileno(), theirs.fileno(), shares)
        command = [sys.executable, "-m", "mistral_api.serving.api_process", "2", *map(str, numbers), "0.0.1+older"]
        done = subprocess.run(
            command,
            env=clean_environment(DATA_DIR=str(data_dir)),
            stdin=subprocess.PIPE,
            capture_output=True,
            pass_fds=numbers,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(shares)
    assert done.returncode == ExitCode.OTHER_VERSION
    assert done.stderr.count("\n") == 1
    assert "API process 2 does not serve: the program was changed since the server started" in done.stderr
    assert not (data_dir / "journal").exists()
