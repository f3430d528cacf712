"""What is installed, every module imported, commands, and unit tests, all on Windows' Python."""

from __future__ import annotations

import re

from tests.support.processes import free_port
from tests.windows.checks import CheckError, Step
from tests.windows.installation import Installation
from tests.windows.parts import ROOT
from tests.windows.wine import tail

COMMAND_SECONDS = 600.0
UNIT_TESTS_SECONDS = 1500.0
COMMANDS = "from mistral_api.cli import main; main()"
# A file of unit tests is run where it has to do with what differs between systems: files, processes, threads, sockets,
# clocks, encodings. What only computes is the same everywhere, and would take the time of the check twice.
SYSTEM_WORDS = re.compile(
    r"^(import|from) (os|socket|subprocess|threading|sqlite3|psutil|shutil|signal|tempfile|time|locale|stat|ssl)\b"
    r"|tmp_path|data_dir|write_text|win32",
    re.MULTILINE,
)
NOT_RUN = {
    "test_unit_files.py": "systemd is Linux's",
    "test_container_files.py": "the image is Linux's",
    "test_server_spec.py": "imports numpy, which Wine 8 cannot load",
    "test_companion_files.py": "writes models with numpy, which Wine 8 cannot load",
    "test_gguf_hostile.py": "half a minute of computation",
    "test_import_malformed_values.py": "half a minute of computation",
    "test_repetition.py": "computation, timed",
}
# Why a test that is run may skip itself here. Any other reason is a failure: something is missing.
EXPECTED_SKIPS = {
    "API_PROCESSES is for POSIX systems",
    "bin/bench needs Linux",
    "its clock is too coarse: how many come at a time is chance",
    "pipes of POSIX",
    "POSIX modes",
    "a file's name with a colon",
    "Windows has no such modes",
    "Windows has no such sockets",
    "limits of POSIX",
    "llama.cpp's own reader has no name on Windows",
    "names of POSIX systems",
    "needs a script that is a program",
    "the places of Linux' drivers",
    "the protocol is systemd's",
    "the same name",
    "this kernel does not count its kills for want of memory",
}
# What Wine 8 cannot tell of another process: its program (psutil.Process.name raises "Invalid parameter"), and its
# processor time (it tells the caller's own).
DESELECTED = (
    "test_postgres_watcher.py::test_lock_file_that_names_another_program_is_no_running_postgres_and_is_removed",
    "test_constraint_gate.py::test_trial_on_a_plain_vocabulary_finds_a_killer",
)


def package_steps(installation: Installation) -> list[Step]:
    """Return the steps that look at the package and its code; none needs another."""
    return [
        Step("imports and requirements", lambda: _imports(installation)),
        Step("unit tests", lambda: _unit_tests(installation)),
    ]


def command_steps(installation: Installation) -> list[Step]:
    """Return the steps that run commands."""
    return [Step("commands", lambda: _commands(installation))]


def _imports(installation: Installation) -> str:
    output = _output(installation, 0, "-m", "tests.windows.import_everything")
    return output.strip().splitlines()[-1]


def _output(installation: Installation, expected: int, *arguments: str, **settings: str) -> str:
    """Return what a command of Python prints. Raises CheckError where it ends with another exit code."""
    process = installation.start(*arguments, **settings)
    code = process.wait(COMMAND_SECONDS)
    if code != expected or "Traceback" in process.output:
        raise CheckError(f"{' '.join(arguments)} ended with {code}:\n{tail(process.output)}")
    return process.output


def _commands(installation: Installation) -> str:
    """Run commands that need no server, and some that must refuse to go on in one sentence."""
    data_dir = r"C:\commands"
    helped = _output(installation, 0, "-c", COMMANDS, "--help")
    if "backup" not in helped:
        raise CheckError(f"mistral-api --help says:\n{tail(helped)}")
    stopped = _output(installation, 1, "-m", "mistral_api.supervisor", "status", DATA_DIR=data_dir)
    _expect("no supervisor has run", stopped)
    _output(installation, 4, "-c", COMMANDS, "service", "status", DATA_DIR=data_dir)
    port = str(free_port())
    wrong = _output(installation, 2, "-m", "mistral_api.serving", API_PORT=port, API_THREADS="lots", DATA_DIR=data_dir)
    _expect("API_THREADS", wrong)
    if len(wrong.strip().splitlines()) != 1:
        raise CheckError(f"more than a sentence:\n{tail(wrong)}")
    alone = _output(installation, 2, "-m", "mistral_api.serving", API_PORT=port, API_PROCESSES="2", DATA_DIR=data_dir)
    _expect("API_PROCESSES: on Windows", alone)
    return "5 commands"


def _expect(words: str, output: str) -> None:
    if words not in output:
        raise CheckError(f"'{words}' is missing in:\n{tail(output)}")


def _unit_tests(installation: Installation) -> str:
    """Run the unit tests. Raises CheckError where one fails, or is skipped for another reason than Windows."""
    options = ["-q", "-rfEs", "--strict-markers", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow"]
    deselected = [f"--deselect=tests/unit/{test}" for test in DESELECTED]
    process = installation.start("-m", "pytest", *options, *deselected, *unit_test_files())
    code = process.wait(UNIT_TESTS_SECONDS)
    skipped = set(re.findall(r"^SKIPPED .*?: (.*)$", process.output, re.MULTILINE)) - EXPECTED_SKIPS
    passed = re.search(r"(\d+) passed", process.output)
    if code != 0 or skipped or passed is None:
        raise CheckError(f"pytest ended with {code}; skipped {sorted(skipped)}:\n{tail(process.output, 80)}")
    return passed[0]


def unit_test_files() -> list[str]:
    """Return the files of the unit tests that are run, relative to the project."""
    files = sorted((ROOT / "tests" / "unit").glob("test_*.py"))
    touching = [file for file in files if SYSTEM_WORDS.search(file.read_text(encoding="utf-8"))]
    return [str(file.relative_to(ROOT)) for file in touching if file.name not in NOT_RUN]
