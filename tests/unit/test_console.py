"""What a command prints where the encoding of its output is narrow, as in a pipe on Windows."""

from __future__ import annotations

import os
import subprocess
import sys

# A path of the user's that Western Europe's code pages have not.
FOLDER = "модели→"


def test_status_of_a_folder_with_any_name_is_printed_in_a_narrow_encoding(tmp_path: object) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "DATA_DIR": f"{tmp_path}/{FOLDER}", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mistral_api.supervisor", "status"],
        env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert b"\\u043c\\u043e" in done.stdout
    assert done.stderr == b""


def test_output_of_a_command_is_printed_in_a_narrow_encoding() -> None:
    program = (
        "import click; from mistral_api.cli import main\n"
        "@main.command()\ndef say(): click.echo('модели→')\n"
        "main(['say'])"
    )
    environment = os.environ | {"PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\\u043c\\u043e")
