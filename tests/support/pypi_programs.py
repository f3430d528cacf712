"""Programs from PyPI, unmodified, each in the version that stands here and in an environment of its own.

What cannot be installed skips the test (:mod:`tests.support.client_cache`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.client_cache import cached_program, run_installer

VERSIONS = {"aider-chat": "0.86.2"}


def pypi_program(name: str, module: str) -> list[str]:
    """Return the command line of a package of ``VERSIONS``. Skips the test where it cannot be installed."""
    version = VERSIONS[name]

    def install(folder: Path) -> None:
        run_installer([sys.executable, "-m", "venv", str(folder)])
        run_installer([str(folder / "bin" / "pip"), "install", "--quiet", "--retries=1", f"{name}=={version}"])

    # The scripts of the environment name the folder in which it was made, before it was moved to where it stays.
    return [str(cached_program(name, version, install) / "bin" / "python"), "-m", module]
