"""Tier A: what is installed, every module imported, commands, and unit tests, all on Windows' Python."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.processes import free_port
from tests.windows.checks import CheckError, Step
from tests.windows.installation import Installation
from tests.windows.parts import ROOT
from tests.windows.wine import tail

COMMAND_SECONDS = 60.0
UNIT_TESTS_SECONDS = 240.0
COMMANDS = "from mistral_api.cli import main; main()"
# Tests of Linux alone, and those that the time of the check does not hold: each names the reason.
NOT_RUN = {
    "test_unit_files.py": "systemd",
}


def base_steps(installation: Installation) -> list[Step]:
    """Return the steps; none needs the ones before it but the first."""
    return [
        Step("imports and requirements", lambda: _imports(installation)),
        Step("commands", lambda: _commands(installation)),
        Step("unit tests", lambda: _unit_tests(installation)),
    ]


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
    return "4 commands"


def _expect(words: str, output: str) -> None:
    if words not in output:
        raise CheckError(f"'{words}' is missing in:\n{tail(output)}")


def _unit_tests(installation: Installation) -> str:
    """Run the unit tests of all files but NOT_RUN. Raises CheckError where one fails or is skipped."""
    options = ["-q", "-rfEs", "--strict-markers", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow"]
    process = installation.start("-m", "pytest", *options, *unit_test_files())
    code = process.wait(UNIT_TESTS_SECONDS)
    summary = tail(process.output, 40)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed|error)", summary)}
    if code != 0 or not counts.get("passed"):
        raise CheckError(f"pytest ended with {code}:\n{summary}")
    return f"{counts['passed']} passed"


def unit_test_files() -> list[str]:
    """Return the files of the unit tests that are run, as arguments of pytest."""
    names = sorted(path.name for path in (ROOT / "tests" / "unit").glob("test_*.py"))
    return [str(Path("tests", "unit", name)) for name in names if name not in NOT_RUN]
