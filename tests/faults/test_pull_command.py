"""``mistral-api pull``, run as an operator types it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from mistral_api.cli import main
from mistral_api.model_files.served_model import demo_model_path
from tests.support.model_hub import ModelHub, model_hub
from tests.support.model_pulls import REPO, pull_from
from tests.support.processes import clean_environment, wait_for

pytestmark = pytest.mark.usefixtures("no_hub_settings")

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
KNOWN_FILE = "bartowski/Mistral-7B-Instruct-v0.3-GGUF/Mistral-7B-Instruct-v0.3-Q4_K_M.gguf"


def _environment(hub: ModelHub, folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment without the hub settings of whoever runs the tests."""
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("HF_")}
    return kept | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "TERM": "xterm"} | variables


def _start_pull(hub: ModelHub, folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "pull", *arguments], env=_environment(hub, folder, **variables), cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _wait_for_end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_pull_command_resumes_after_a_kill_and_an_interrupt(tmp_path: Path) -> None:
    content = demo_model_path().read_bytes()
    with model_hub(**{KNOWN_FILE: content}) as hub:
        hub.fault = "stall"
        for number, ending in enumerate((signal.SIGKILL, signal.SIGINT), start=1):
            begun = _start_pull(hub, tmp_path, "mistral-7b-instruct")
            _wait_for_requests(hub, number)
            wait_for(lambda: _partial_bytes(tmp_path / "models") >= len(content) // 2, "half of the model")
            _wait_until_blocked(begun)
            begun.send_signal(ending)
            code, _, errors = _wait_for_end(begun)
            assert not list((tmp_path / "models").glob("*.gguf"))
        assert (code, errors.splitlines()[-1]) == (1, "Error: Interrupted; the same command goes on where it was.")
        hub.fault = ""
        code, output, errors = _wait_for_end(_start_pull(hub, tmp_path, "mistral-7b-instruct"))
    assert code == 0, errors
    half = (len(content) + 1) // 2
    assert hub.ranges() == [None, f"bytes={half}-", f"bytes={half}-"]
    path = tmp_path / "models" / "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf"
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert f"MODEL_PATH={path}\nMODEL_ALIAS=mistral-7b-instruct\n" in output
    assert "MiB): 50 %\n" in errors
    assert "MiB): 100 %\n" in errors


def _wait_for_requests(hub: ModelHub, number: int) -> None:
    wait_for(lambda: len(hub.storage_requests) == number, f"request {number} for content")


def _wait_until_blocked(process: subprocess.Popen[str]) -> None:
    """Wait until the command waits for the hub: between two looks it has used no processor time.

    Python sees a signal only at its next step or in a blocked call: one that comes just before that call is late.
    """
    looks: list[float] = []

    def is_blocked() -> bool:
        time.sleep(0.2)
        looks.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
        return len(looks) > 1 and looks[-1] == looks[-2]

    wait_for(is_blocked, "a command that waits for the hub")


def _partial_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(".pull/*.part"))


def test_pull_command_shows_a_progress_bar_on_a_terminal(hub: ModelHub, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="POSIX terminals")
    terminal, end = pty.openpty()
    environment, command = _environment(hub, tmp_path), [PROGRAM, "pull", f"{REPO}:m.gguf"]
    subprocess.run(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=end, timeout=60, check=True)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(terminal, 65536):
            shown += piece
    os.close(terminal)
    assert "m.gguf (0.4 MiB)" in shown.decode()
    assert "100%" in shown.decode()


def test_pull_command_reads_the_token_from_the_env_file_and_never_prints_it(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=hf_wrong_and_secret\n")
    hub.fault = "gated"
    process = _start_pull(hub, tmp_path, f"{REPO}:m.gguf", HF_DEBUG="1")
    code, output, errors = _wait_for_end(process)
    assert (code, output) == (1, "")
    assert "Error: someone/model-GGUF is gated" in errors
    assert {each.authorization for each in hub.hub_requests} == {"Bearer hf_wrong_and_secret"}
    assert "secret" not in errors


def test_pull_command_names_an_unreachable_hub_in_one_line(hub: ModelHub, tmp_path: Path) -> None:
    code, output, errors = _wait_for_end(
        _start_pull(hub, tmp_path, f"{REPO}:m.gguf", HF_HUB_ETAG_TIMEOUT="", HF_ENDPOINT="http://me:secret@127.0.0.1:1")
    )
    assert (code, output) == (1, "")
    assert errors.startswith("Error: 127.0.0.1:1 cannot be reached")
    assert len(errors.splitlines()) == 1
    assert "secret" not in errors


def test_pull_command_explains_bad_settings_and_unknown_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str, exit_code: int = 1) -> str:
        done = CliRunner().invoke(main, ["pull", name, "--dir", str(tmp_path)])
        assert (done.exit_code, done.stdout) == (exit_code, "")
        return done.stderr

    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
    assert said("mistral-7b-instruct").startswith("Error: HF_HUB_DOWNLOAD_TIMEOUT: 'soon' is not allowed; give a whole")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "")
    (tmp_path / ".env").write_bytes(b"HF_TOKEN=\xe9t\xe9\n")
    unreadable = f"'{tmp_path / '.env'}' cannot be read: it is not UTF-8 (line 1); save it as UTF-8."
    assert said("mistral-7b-instruct", 2) == f"Error: {unreadable}\n"
    (tmp_path / ".env").unlink()
    assert said("mistral-70b").startswith("Error: 'mistral-70b' is not known: give one of ministral-3b-instruct, ")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert said("mistral-7b-instruct") == "Error: HF_HUB_OFFLINE is set: unset it to download.\n"
    monkeypatch.setenv("HF_TOKEN", "hf_\u00e9t\u00e9")
    assert said("mistral-7b-instruct") == "Error: HF_TOKEN has characters that no token has: copy it anew.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_pull_command_reports_a_full_disk_and_resumes_later(hub: ModelHub, tmp_path: Path) -> None:
    limit = 100_000
    command = ["prlimit", f"--fsize={limit}", PROGRAM, "pull", f"{REPO}:m.gguf"]
    full = subprocess.run(
        command, env=_environment(hub, tmp_path), cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"Error: The disk of {tmp_path / 'models'} is full; make room")
    pull_from(hub, tmp_path / "models")
    assert hub.ranges() == [None, f"bytes={limit}-"]


def test_pull_list_works_offline_and_other_commands_do_not_import_huggingface_hub() -> None:
    shown = CliRunner().invoke(main, ["pull", "--list"])
    assert shown.exit_code == 0
    assert re.search(r"^mistral-7b-instruct +4\.1 +9\.1 +12 +20 +28 ", shown.stdout, re.MULTILINE)
    program = "import sys, mistral_api.cli; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
