"""The set-up by the commands in ``bin/``, of a project in miniature: what it prints, folders that were moved, and
interruptions. A set-up that cannot go on ends with one sentence, and the next one heals what it has left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import wait_for
from tests.support.small_project import hello, make_small_project, small_command, start_hello

pytestmark = pytest.mark.slow

MAKING, PACKAGES = "1/3", "2/3"
WAITING = "Another process is setting up .venv; waiting until it is done.\n"
STEP_SECONDS = 30.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that has been set up; tests copy it."""
    root = tmp_path_factory.mktemp("setup") / "project"
    make_small_project(root)
    code, output = hello(root)
    assert code == 0, output
    assert [line.partition(" in ")[0] for line in output.splitlines()] == [
        "Setting up Mistral Local API",
        "  1/3 making the Python environment",
        "  2/3 installing packages",
        "  3/3 installing the demo model (98 MB)",
        "Set up",
        "small project",
    ]
    yield root
    shutil.rmtree(root)


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the project that has been set up, in a folder whose name has a space and a quote."""
    root = tmp_path / "it's a copy"
    shutil.copytree(project, root, symlinks=True)
    return root


def test_second_start_sets_up_nothing(project: Path) -> None:
    assert hello(project) == (0, f"small project in {project / 'small.py'}\n")


def test_copied_folder_repairs_its_environment_without_pip(project: Path, copy: Path) -> None:
    shutil.rmtree(next((copy / ".venv").glob("lib/python*/site-packages/pip")))
    repaired = f"This folder was {project} before; repairing its Python environment.\n"
    assert hello(copy) == (0, f"{repaired}small project in {copy / 'small.py'}\n")
    assert small_command(copy) == f"small project in {copy / 'small.py'}"
    assert small_command(project) == f"small project in {project / 'small.py'}"
    assert str(project) not in "".join(file.read_text() for file in (copy / ".venv" / "bin").glob("activate*"))


def test_folder_moved_to_a_longer_and_to_a_shorter_path_runs_its_commands(copy: Path) -> None:
    for name in ("x" * 150, "y"):
        moved = copy.parent / name
        copy = copy.rename(moved)
        assert hello(copy)[0] == 0
        assert small_command(copy) == f"small project in {moved / 'small.py'}"


def test_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_small_project(root)
    (root / ".venv").mkdir()
    (root / ".venv" / "letters.txt").write_text("mine")
    sentence = f"'{root / '.venv'}' is no Python environment: move it away, and start again.\n"
    assert hello(root) == (2, sentence)
    assert (root / ".venv" / "letters.txt").read_text() == "mine"


def test_update_that_cannot_begin_leaves_what_was_there(copy: Path) -> None:
    assert hello(copy)[0] == 0
    project_file = copy / "pyproject.toml"
    was = project_file.read_text()
    project_file.write_text(was.replace("dependencies = []", 'dependencies = ["no-such-package-anywhere"]', 1))
    code, output = hello(copy)
    assert code == 2
    assert "No matching distribution found for no-such-package-anywhere" in output
    assert output.splitlines()[-1] == "pip could not install what is needed; above is what it said."
    project_file.write_text(was)
    assert hello(copy) == (0, f"small project in {copy / 'small.py'}\n")


def test_index_that_cannot_be_reached_is_one_sentence_that_names_it(copy: Path) -> None:
    assert hello(copy)[0] == 0
    project_file = copy / "pyproject.toml"
    project_file.write_text(project_file.read_text().replace("dependencies = []", 'dependencies = ["flask"]', 1))
    code, output = hello(
        copy,
        PIP_NO_INDEX="0",
        PIP_INDEX_URL="http://user:secret@127.0.0.1:9/simple",
        PIP_RETRIES="1",
        HTTPS_PROXY="http://anna:secret@127.0.0.1:9",
        NO_PROXY="127.0.0.1",
    )
    assert (code, output) == (
        2,
        "Bringing .venv up to date.\n  2/3 installing packages\n"
        "The package index http://…@127.0.0.1:9/simple cannot be reached (HTTPS_PROXY=http://…@127.0.0.1:9): "
        "check the network, or set HTTPS_PROXY to your proxy, or PIP_INDEX_URL to another index.\n",
    )


def test_python_without_ensurepip_is_one_sentence_that_names_the_package(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_small_project(root)
    startup = tmp_path / "without-ensurepip"
    startup.mkdir()
    # As on a Debian without python3-venv: the module is not there.
    (startup / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'ensurepip' else find(name, *rest)\n"
    )
    code, output = hello(root, PYTHONPATH=str(startup))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code == 2
    assert output.splitlines()[-1] == (
        f"This Python cannot make environments: on Debian or Ubuntu `apt install python{version}-venv`, "
        "then start again."
    )


def test_python_that_is_too_old_is_one_sentence(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_small_project(root)
    startup = tmp_path / "older"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 2)\nsys.version = '3.9.2 (x)'\n")
    assert hello(root, PYTHONPATH=str(startup)) == (2, "Python 3.11 or newer is needed; this is 3.9.2.\n")
    assert not (root / ".venv").exists()


def _read_until(process: subprocess.Popen[str], step: str) -> str:
    """Read the output of a set-up until a step begins; return what was read."""
    assert process.stdout is not None
    output = ""
    while not (line := process.stdout.readline()).strip().startswith(step):
        assert line, f"the set-up ended early: {output}"
        output += line
    return output


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _stop_within(
    root: Path, step: str, number: signal.Signals, *, group: bool = True, **variables: str
) -> tuple[int, str, str]:
    """Set up until amid a step, and send a signal to all processes, or to the first of them alone; return the exit
    code, and what was printed before and after."""
    (root / "building").unlink(missing_ok=True)
    process = start_hello(root, **variables)
    before = _read_until(process, step)
    if "BUILD_SECONDS" in variables:
        wait_for((root / "building").exists, "a build by pip", STEP_SECONDS)
    (os.killpg if group else os.kill)(process.pid, number)
    if not group:
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode, before, ""
    after, _ = process.communicate(timeout=60)
    wait_for(lambda: _is_gone(process.pid), "the end of the set-up", STEP_SECONDS)
    return process.returncode, before, after


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")
def test_interrupted_set_ups_are_healed_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_small_project(root)
    _stop_within(root, MAKING, signal.SIGKILL)
    # Only the first process is killed, and its pip goes on: the next set-up waits for that.
    _stop_within(root, PACKAGES, signal.SIGKILL, group=False, BUILD_SECONDS="5")
    code, before, after = _stop_within(root, PACKAGES, signal.SIGINT, BUILD_SECONDS="60")
    assert before.startswith(WAITING)
    assert (code, after) == (130, "The set-up was interrupted; the next start goes on with it.\n")
    (root / ".venv" / "mistral-api-setup.json").write_text('{"fingerprint": "trunc')
    # Two at the same time: the second waits for the first.
    first = start_hello(root)
    _read_until(first, MAKING)
    said = f"small project in {root / 'small.py'}\n"
    assert hello(root) == (0, WAITING + said)
    assert first.communicate(timeout=30)[0].endswith(said)
    assert small_command(root) == said.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")
def test_environment_whose_python_was_removed_is_made_anew(copy: Path) -> None:
    assert hello(copy)[0] == 0
    configuration = copy / ".venv" / "pyvenv.cfg"
    lines = configuration.read_text().splitlines()
    configuration.write_text(
        "\n".join("executable = /gone/python3.9" if line.startswith("executable") else line for line in lines)
    )
    process = start_hello(copy)
    assert (
        _read_until(process, MAKING) == "The set-up of .venv was interrupted, or its Python is gone; making it anew.\n"
    )
    packages = copy / ".venv"
    wait_for(lambda: not list(packages.glob("lib/python*/site-packages/__editable__*")), "the removal", STEP_SECONDS)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small disk"
)
def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount") or "", shutil.which("umount") or ""
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], timeout=10, check=True)
    try:
        make_small_project(disk / "project")
        code, output = hello(disk / "project")
    finally:
        subprocess.run([umount, str(disk)], timeout=10, check=True)
    assert (code, output.splitlines()[-1]) == (
        2,
        f"There is no space left on the disk of '{disk / 'project' / '.venv'}' or of the temporary folder: "
        "the set-up needs about 1 GB.",
    )
    assert "Traceback" not in output
