"""Bounds of connections: from the settings, and from what the system allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mistral_api.serving.connection_limits import OTHER_FILES, connection_limits
from mistral_api.settings import Settings

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[1])))
from mistral_api.serving.connection_limits import connection_limits
from mistral_api.settings import Settings
print(connection_limits(Settings(max_connections=1000)).connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(("hard", "connections"), [(OTHER_FILES + 200, 100), (4096, 1000), (300, 16)])
def test_limit_of_open_files_is_raised_and_kept(hard: int, connections: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(hard)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(connections), str(min(hard, 2000 + OTHER_FILES))]


def test_one_largest_body_may_always_be_held() -> None:
    assert connection_limits(Settings(max_held_bytes=1 << 20)).held_bytes == Settings().max_request_bytes
