"""What the set-up reads and writes: launchers of commands, pip's output, lines of progress. ``bin/environment``."""

from __future__ import annotations

import ast
import io
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from environment import record
from environment.errors import LEAST_FREE_BYTES, SetupError, from_os_error, is_disk_full
from environment.paths import VENV
from environment.pip_runner import COLLECTED, PipOutput, without_password
from environment.progress import Progress
from environment.relocation import move_launcher
from tests.support.processes import ROOT

PIP_OUTPUT = """Obtaining file:///opt/project
Collecting Flask<4,>=3.1 (from project==0.1.0)
Downloading flask-3.1.3-py3-none-any.whl (103 kB)
Progress 51500 of 103000
Collecting ruamel.yaml (from project==0.1.0)
Installing collected packages: Flask, ruamel.yaml, project
Successfully installed Flask-3.1.3 project-0.1.0 ruamel.yaml-0.18
"""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _launcher(shebang: str) -> bytes:
    return f"{shebang}\n# -*- coding: utf-8 -*-\nimport sys\n".encode()


@pytest.mark.parametrize("name", ["python", "python3", "python3.11"])
def test_launcher_runs_the_python_of_the_new_folder(name: str) -> None:
    old, new = PurePosixPath("/home/me/old/.venv/bin"), PurePosixPath("/srv/new/.venv/bin")
    assert move_launcher(_launcher(f"#!{old}/{name}"), old, new) == _launcher(f"#!{new}/{name}")


def test_launcher_of_a_path_with_a_space_goes_by_the_shell_and_back() -> None:
    plain, spaced = PurePosixPath("/srv/plain/.venv/bin"), PurePosixPath("/srv/a b/.venv/bin")
    shell = _launcher(f"#!/bin/sh\n'''exec' \"{spaced}/python\" \"$0\" \"$@\"\n' '''")
    assert move_launcher(_launcher(f"#!{plain}/python"), plain, spaced) == shell
    assert move_launcher(shell, spaced, plain) == _launcher(f"#!{plain}/python")


def test_launcher_of_windows_is_a_program_with_a_line_and_an_archive() -> None:
    old, new = PureWindowsPath(r"C:\old\.venv\Scripts"), PureWindowsPath(r"D:\my things\.venv\Scripts")
    program = b"MZ\x00\x01"
    archive = b"\r\nPK\x03\x04rest"
    moved = move_launcher(program + rb"#!C:\old\.venv\Scripts\python.exe" + archive, old, new)
    assert moved == program + rb'#!"D:\my things\.venv\Scripts\python.exe"' + archive
    assert move_launcher(moved, new, old) == program + rb'#!"C:\old\.venv\Scripts\python.exe"' + archive


@pytest.mark.parametrize("content", [b"\x7fELF\x02 /srv/old/.venv/bin/python", b"#!/usr/bin/env python3\n", b""])
def test_programs_that_name_no_python_of_ours_stay(content: bytes) -> None:
    assert move_launcher(content, PurePosixPath("/srv/old/.venv/bin"), PurePosixPath("/new/.venv/bin")) == content


def test_output_of_pip_becomes_progress() -> None:
    output = PipOutput(expected=4)
    seen = []
    for line in PIP_OUTPUT.splitlines():
        output.add(line)
        seen.append((output.fraction, output.detail))
    assert seen[1] == (COLLECTED / 4, "Flask")
    assert seen[3] == (COLLECTED / 4, "Flask 0 of 0 MB")
    assert seen[4] == (COLLECTED / 2, "ruamel.yaml")
    assert output.installing == 3
    assert not any("Progress" in line for line in output.last_lines)


def test_engine_that_is_not_built_for_this_system_is_known_before_anything_is_installed() -> None:
    output = PipOutput(expected=4)
    output.add("ERROR: No matching distribution found for xllamacpp<2027,>=2026.10")
    assert (output.no_engine, output.installing) == (True, 0)


def test_progress_is_one_line_on_a_terminal_and_a_line_a_stage_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    for terminal in (True, False):
        out = _Terminal() if terminal else io.StringIO()
        progress = Progress({"first": 1, "second": 3}, out)
        progress.begin("first")
        progress.begin("second")
        progress.show(0.5, "x" * 200)
        progress.clear()
        lines = out.getvalue().split("\r")
        if terminal:
            assert {len(line) for line in lines if line} == {59}
            assert "62 %  second: xxx" in out.getvalue()
            assert "\n" not in out.getvalue()
        else:
            assert lines == ["  1/2 first\n  2/2 second\n"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://pypi.org/simple", "https://pypi.org/simple"),
        ("https://me:pass@index.example.com/simple", "https://…@index.example.com/simple"),
        ("me:p@ss@proxy:3128", "…@proxy:3128"),
    ],
)
def test_addresses_are_shown_without_passwords(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_errors_of_the_system_are_one_sentence(tmp_path: Path) -> None:
    assert str(from_os_error(PermissionError(13, "Permission denied"), tmp_path)) == (
        f"The Python environment '{tmp_path}' cannot be made: Permission denied."
    )
    full = from_os_error(OSError(28, "No space left on device"), tmp_path)
    assert isinstance(full, SetupError)
    assert "no space left" in str(full)
    assert LEAST_FREE_BYTES > 0
    assert is_disk_full(tmp_path) is False


def test_python_3_8_can_read_what_tells_that_it_is_too_old() -> None:
    for file in ("bootstrap.py", *(f"environment/{path.name}" for path in (ROOT / "bin" / "environment").glob("*.py"))):
        ast.parse((ROOT / "bin" / file).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_environment_made_by_hand_is_added_to_and_one_that_was_interrupted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record.json"
    monkeypatch.setattr(record, "RECORD", file)
    monkeypatch.setattr(record, "has_working_python", lambda: True)
    assert record.diagnose(None, ()) is record.Need.UPDATE
    file.write_text('{"finger')
    assert record.diagnose(record.read_record(), ()) is record.Need.REMAKE
    record.Record(record.fingerprint(), (), str(VENV), finished=False).write()
    assert record.diagnose(record.read_record(), ()) is record.Need.REMAKE
    record.Record(record.fingerprint(), (), str(VENV)).write()
    assert record.diagnose(record.read_record(), ()) is record.Need.NOTHING
    assert record.diagnose(record.read_record(), ("test",)) is record.Need.UPDATE
