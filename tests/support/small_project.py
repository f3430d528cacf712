"""A project with the commands of this one's ``bin/``, small enough to be set up in seconds and without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

COMMAND_SECONDS = 90.0

_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small-project"
version = "1.0"
dependencies = []
[project.optional-dependencies]
test = []
"""

# What a build backend must have for an editable installation (PEP 660).
_BACKEND = '''
"""Builds the wheel of an editable installation: a path, and a command. BUILD_SECONDS makes a build so long, and leaves
the file ``building`` when one begins."""
import os, time, tomllib, zipfile
from pathlib import Path

if "BUILD_SECONDS" in os.environ:
    Path("building").touch()
    time.sleep(float(os.environ["BUILD_SECONDS"]))
NEEDED = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
FILES = {
    "__editable__.small.pth": f"{Path.cwd()}\\n",
    "small_project-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: small-project\\nVersion: 1.0\\n"
    + "".join(f"Requires-Dist: {name}\\n" for name in NEEDED),
    "small_project-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "small_project-1.0.dist-info/entry_points.txt": "[console_scripts]\\nsmall-command = small:main\\n",
    "small_project-1.0.dist-info/RECORD": "",
}


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "small_project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
    return name
'''

_COMMAND = """
import sys, bootstrap
bootstrap.ensure_environment(*sys.argv[1:])
bootstrap.run_in_environment(["-c", "import small; small.main()"])
"""

# The Python below that of the tests: an environment's own is no good base for others.
PYTHON = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def make_small_project(root: Path) -> None:
    """Make the project in a folder that is not there yet."""
    shutil.copytree(ROOT / "bin", root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in {
        "pyproject.toml": _PYPROJECT,
        "backend.py": _BACKEND,
        "small.py": "def main():\n    print('small project in', __file__)\n",
        "requirements-demo.txt": "# nothing\n",
        "requirements-openmp.txt": "# nothing\n",
        "bin/hello": _COMMAND,
    }.items():
        (root / name).write_text(text, encoding="utf-8")


def start_hello(root: Path, *extras: str, python: str = PYTHON, **variables: str) -> subprocess.Popen[str]:
    """Start the project's command, as the leader of its own process group."""
    return subprocess.Popen(
        [python, str(root / "bin" / "hello"), *extras],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=_environment() | variables,
        process_group=0,
    )


def hello(root: Path, *extras: str, python: str = PYTHON, **variables: str) -> tuple[int, str]:
    """Run the project's command; return its exit code and what it printed."""
    with start_hello(root, *extras, python=python, **variables) as process:
        output, _ = process.communicate(timeout=COMMAND_SECONDS)
    return process.returncode, output


def small_command(root: Path) -> str:
    """Return what the installed command of the project prints."""
    scripts = root / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")
    done = subprocess.run(
        [str(scripts / "small-command")], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
    )
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    """Return our environment without what tells pip where to look: the project needs nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
    return kept | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
