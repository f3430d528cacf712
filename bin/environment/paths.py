"""The files and folders of the environment."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if sys.platform == "win32" else "bin")
PYTHON = SCRIPTS / ("python.exe" if sys.platform == "win32" else "python")
CONFIGURATION = VENV / "pyvenv.cfg"
RECORD = VENV / "mistral-api-setup.json"
LOCK = VENV / "mistral-api-setup.lock"
REQUIREMENTS = ROOT / "pyproject.toml"
DEMO = ROOT / "requirements-demo.txt"
OPENMP = ROOT / "requirements-openmp.txt"


def site_packages() -> Path:
    """Return the folder of the installed packages, or the folder where one would look for it."""
    if sys.platform == "win32":
        return VENV / "Lib" / "site-packages"
    return next(VENV.glob("lib/python3*/site-packages"), VENV / "lib")
