"""What a machine lacks, such as libraries of the system or the size of its swap space, is said or done without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mistral_api.doctor.model import check_engine, check_memory
from mistral_api.errors import StartError
from mistral_api.hardware.main_memory import total_memory_bytes
from mistral_api.settings import Settings
from mistral_api.supervisor import engine, preflight
from mistral_api.supervisor.engine import choose_engine
from mistral_api.supervisor.server_run import _describe_exit
from tests.support.supervisor_process import broken_xllamacpp


@pytest.mark.parametrize("module", ["mistral_api.embedded.engine", "mistral_api.embedded.engine.trial"])
def test_engine_without_its_libraries_ends_with_one_sentence(tmp_path: Path, module: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(broken_xllamacpp(tmp_path))}
    command = [sys.executable, "-m", module, "-m", "any.gguf"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: xllamacpp cannot be loaded, ")
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]


def test_doctor_says_why_the_bundled_engine_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LLAMA_SERVER", "no-such-llama-server")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "wide")
    (loaded,) = check_engine(Settings())
    assert loaded.level == "ok"
    monkeypatch.setenv("PYTHONPATH", str(broken_xllamacpp(tmp_path)))
    (broken,) = check_engine(Settings())
    assert broken.level == "failure"
    assert broken.text.startswith("the bundled engine does not load: xllamacpp cannot be loaded, ")


def test_memory_is_known_where_the_system_does_not_say_how_much_swap_space_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def switched_off() -> None:
        raise RuntimeError("PdhAddEnglishCounterW failed. Performance counters may be disabled.")

    whole = total_memory_bytes()
    monkeypatch.setattr(psutil, "swap_memory", switched_off)
    assert total_memory_bytes() == psutil.virtual_memory().total <= whole


def test_doctor_measures_memory_as_the_supervisor_does(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LLAMA_SERVER", "no-such-llama-server")
    monkeypatch.setattr(preflight, "total_memory_bytes", lambda: 1 << 20)
    (found,) = check_memory(Settings(data_dir=data_dir))
    assert found.level == "failure"
    assert found.text.startswith("MODEL_PATH: ")
    assert "this machine 1 MiB of memory" in found.text


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script that is a program")
def test_llama_server_whose_dll_is_missing_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\nexit 53\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(engine, "DLL_NOT_FOUND", 53)  # codes of POSIX systems end at 255
    with pytest.raises(StartError, match=r"^LLAMA_SERVER_BIN: '.*' does not run: a DLL is missing, such as"):
        choose_engine(Settings(llama_server_bin=program), lambda: False)


def test_crash_on_windows_is_described_by_the_code_that_people_look_up() -> None:
    assert _describe_exit(0xC0000005) == "exit code 0xC0000005"
    assert _describe_exit(-9) == "signal 9"
    assert _describe_exit(1) == "exit code 1"
