"""The project installed on the drive of a Wine prefix: its files, and ``.venv`` as ``bin\\serve`` would have made it.

Only pip is spared: the packages come from the cache, and the record of a finished set-up is written.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import distribution
from pathlib import Path

from tests.windows.cache import MANIFEST, Cache
from tests.windows.parts import ROOT, packages_part, python_part, shims_part
from tests.windows.wine import WinePrefix, WineProcess, tail

# A path as users have them: with a space, and letters that are not ASCII.
FOLDER = "Bücher und Modelle"
PYTHON_FOLDER = "Python311"
RECORD_SECONDS = 300.0
NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "var", "__pycache__", ".*_cache", "*.egg-info", ".env", "*.log")


class Installation:
    """The project on drive C. ``folder`` is its place as Linux names it."""

    def __init__(self, prefix: WinePrefix, cache: Cache) -> None:
        """Copy everything. Raises PartError where something cannot be fetched, OSError, TimeoutError."""
        self.prefix = prefix
        self.folder = prefix.drive / FOLDER / "mistral-local-api"
        self.base_python = rf"C:\{PYTHON_FOLDER}\python.exe"
        shims = shims_part(cache)
        _place(python_part(cache), prefix.drive / PYTHON_FOLDER)
        shutil.copy(shims / "bcryptprimitives.dll", prefix.drive / "windows" / "system32")
        shutil.copytree(ROOT, self.folder, ignore=NOT_COPIED)
        self._make_environment(shims / "venv_launcher.exe", packages_part(cache))
        self._record_setup()

    @property
    def python(self) -> str:
        """The environment's Python, as Windows names it."""
        return rf"C:\{FOLDER}\mistral-local-api\.venv\Scripts\python.exe"

    def start(self, *arguments: str, **variables: str) -> WineProcess:
        """Start the environment's Python in the project's folder."""
        return self.prefix.start([self.python, *arguments], self.folder, **variables)

    def start_script(self, *arguments: str, **variables: str) -> WineProcess:
        """Start one of ``bin`` as a user does, ``py bin\\serve``: with the Python outside of the environment."""
        return self.prefix.start([self.base_python, *arguments], self.folder, **variables)

    def mend_service_manager(self) -> None:
        """Have Python pass over what Wine's Service Control Manager lacks."""
        shutil.copy(Path(__file__).with_name("sitecustomize.py"), self.folder / ".venv" / "Lib" / "site-packages")

    def _make_environment(self, launcher: Path, packages: Path) -> None:
        environment = self.folder / ".venv"
        site_packages = environment / "Lib" / "site-packages"
        _place(packages, site_packages)
        (environment / "Scripts").mkdir()
        shutil.copy(launcher, environment / "Scripts" / "python.exe")
        lines = [
            rf"home = C:\{PYTHON_FOLDER}",
            "include-system-site-packages = false",
            "version = 3.11.9",
            f"executable = {self.base_python}",
        ]
        (environment / "pyvenv.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._install_project(site_packages)

    def _install_project(self, site_packages: Path) -> None:
        """Install the project as ``pip install -e`` does, with its metadata from this system's environment."""
        project = distribution("mistral-local-api")
        metadata = site_packages / f"mistral_local_api-{project.version}.dist-info"
        metadata.mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (metadata / name).write_text(project.read_text(name) or "", encoding="utf-8")
        # In the encoding that Python 3.11 reads such files in, which is that of the system (Lib/site.py, addpackage).
        path = self.python.removesuffix(r"\.venv\Scripts\python.exe")
        (site_packages / "mistral-local-api.pth").write_text(f"{path}\r\n", encoding="cp1252", newline="")

    def _record_setup(self) -> None:
        process = self.start_script(r"tests\windows\record_setup.py")
        if process.wait(RECORD_SECONDS) != 0:
            raise OSError(f"Windows' Python does not start:\n{tail(process.output)}")


def _place(part: Path, folder: Path) -> None:
    """Copy a part of the cache by hard links where both are on one disk. Python replaces bytecode, and changes none."""
    ignore = shutil.ignore_patterns(MANIFEST)
    try:
        shutil.copytree(part, folder, ignore=ignore, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(part, folder, ignore=ignore)
