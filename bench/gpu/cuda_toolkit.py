"""Where CUDA's compiler and libraries are, so that CMake finds them also where they are spread over several folders.

A toolkit as NVIDIA's installers lay it has everything. Python environments have the same in packages, of which each
brings a part: ``site-packages/nvidia/cu13`` has no ``libcublas.so``, but ``libcublas.so.13``. And a machine that only
runs programs has the driver's ``libcuda.so.1`` without a stub to link with.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.nvidia_smi import read_cards
from bench.programs import BenchmarkError

_LIBRARY_FOLDERS = ("lib64", "lib", "targets/x86_64-linux/lib", "lib64/stubs", "lib/stubs")
_DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
# CMake's names (FindCUDAToolkit) of the libraries that llama.cpp links.
_LIBRARIES = {"CUDA_CUDART": "cudart", "CUDA_cublas_LIBRARY": "cublas", "CUDA_cublasLt_LIBRARY": "cublasLt"}


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A compiler, and what CMake has to be told besides."""

    nvcc: Path
    options: tuple[str, ...]


def find_toolkit() -> Toolkit:
    """Return the toolkit of this machine. Raises BenchmarkError where there is no compiler for CUDA, or no cuBLAS."""
    roots = list(_roots())
    nvcc = next((root / "bin" / "nvcc" for root in roots if (root / "bin" / "nvcc").is_file()), None)
    if nvcc is None:
        raise BenchmarkError("No compiler for CUDA was found: set CUDA_HOME to the folder that has bin/nvcc.")
    # The toolkit of the compiler first: libraries of another version may not go with it.
    own = nvcc.resolve().parent.parent
    places = [own, *(root for root in roots if root != own)]
    options = [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCUDAToolkit_ROOT={own}"]
    return Toolkit(nvcc, (*options, *_library_options(places), *_header_options(own, places), *_driver_options(places)))


def _roots() -> Iterator[Path]:
    named = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))
    yield from (Path(each) for each in named if each)
    if found := shutil.which("nvcc"):
        yield _root_of(found)
    yield from (path for path in (Path("/usr/local/cuda"), Path("/opt/cuda")) if path.is_dir())
    for folder in _packages():
        yield from sorted(folder.glob("nvidia/cu[0-9]*"), reverse=True)


def _root_of(nvcc: str) -> Path:
    """Return the toolkit of a compiler on PATH, which may be a script that starts another one."""
    command = [nvcc, "-v", "--dryrun", "-x", "cu", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    found = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return Path(found[1] if found else Path(nvcc).parent.parent).resolve()


def _packages() -> Iterator[Path]:
    """Yield the folders of packages of every Python here that has some: the one that runs us, and those on PATH."""
    folders = [Path(each) for each in (*site.getsitepackages(), *sys.path) if each]
    if found := shutil.which("python3"):
        folders += Path(found).parent.parent.glob("lib/python3*/site-packages")
    yield from dict.fromkeys(folder for folder in folders if (folder / "nvidia").is_dir())


def _library_options(places: Iterable[Path]) -> Iterator[str]:
    """Yield the libraries that CMake does not find by itself; raise BenchmarkError where one is missing."""
    for variable, name in _LIBRARIES.items():
        library = _find_library(places, name)
        if library is None:
            raise BenchmarkError(
                f"lib{name}.so was not found: set CUDA_HOME to the folder that has lib64/lib{name}.so."
            )
        yield f"-D{variable}={library}"


def _find_library(places: Iterable[Path], name: str) -> Path | None:
    for place in places:
        for folder in _LIBRARY_FOLDERS:
            found = sorted((place / folder).glob(f"lib{name}.so*"), key=lambda path: len(path.name))
            if found:
                return found[0]
    return None


def _header_options(own: Path, places: Iterable[Path]) -> Iterator[str]:
    """Yield where cuBLAS' headers are, unless they are beside the compiler's own."""
    if (own / "include" / "cublas_v2.h").exists() or (own / "targets/x86_64-linux/include/cublas_v2.h").exists():
        return
    other = next((place / "include" for place in places if (place / "include" / "cublas_v2.h").exists()), None)
    if other is None:
        raise BenchmarkError("cublas_v2.h was not found: set CUDA_HOME to the folder that has include/cublas_v2.h.")
    # After all others: the rest of these headers may be of another version.
    yield from (f"-DCMAKE_{language}_FLAGS=-idirafter {other}" for language in ("C", "CXX"))
    yield f"-DCMAKE_CUDA_FLAGS=-Xcompiler -idirafter,{other}"


def _driver_options(places: Iterable[Path]) -> Iterator[str]:
    """Yield the driver's library to link with; without one llama.cpp is built so that it needs none."""
    stub = _find_library(places, "cuda")
    found = stub or next((path for folder in _DRIVER_FOLDERS for path in Path(folder).glob("libcuda.so*")), None)
    yield f"-DCUDA_cuda_driver_LIBRARY={found}" if found else "-DGGML_CUDA_NO_VMM=ON"


def compute_capability() -> str:
    """Return the first card's compute capability as CMake writes it, such as ``90``. Raises BenchmarkError."""
    cards = read_cards()
    if not cards:
        raise BenchmarkError("nvidia-smi shows no card here; --architecture says what to build for.")
    return cards[0].compute_capability.replace(".", "")
