"""``build``: llama-server for the card of this machine alone, and the packages of Python, without network.

What was compiled before the time was over stays: called again, ``build`` goes on with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.cuda_toolkit import compute_capability, find_toolkit
from bench.gpu.folders import BUILD, LLAMA_SERVER, PARCEL, ROOT, SITE, SOURCES, TOOLS, WHEELS
from bench.programs import BenchmarkError

CMAKE_BUILD = BUILD / "cmake"
LOG = BUILD / "build.log"
# Without network, and nothing but the server: no page, no TLS, no library for several cards.
_OPTIONS = (
    *("-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
    *("-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DGGML_CCACHE=OFF"),
    *("-DGGML_NATIVE=ON", "-DLLAMA_BUILD_COMMIT=borrowed"),
)
_CUDA_OPTIONS = ("-DGGML_CUDA=ON", "-DGGML_CUDA_NCCL=OFF", "-DGGML_CUDA_FA_ALL_QUANTS=OFF")
_PROGRESS = re.compile(r"^\[(\d+)/(\d+)\]", re.MULTILINE)
STOP_SECONDS = 10


def build(seconds: float, architecture: str | None, jobs: int) -> str:
    """Build within so many seconds, and return a line that says what was built.

    ``architecture``: what to build for, such as ``90``; None asks the card; ``cpu`` builds without CUDA. Raises
    BenchmarkError where something is missing, does not compile, or is not finished when the time is over.
    """
    deadline = time.monotonic() + seconds
    if not PARCEL.is_dir():
        raise BenchmarkError(f"{PARCEL} is missing: `python3 -m bench.gpu prepare` makes it, where there is network.")
    install_packages()
    _unpack(SOURCES, BUILD / "source")
    _unpack(TOOLS, BUILD / "tools")
    if not (CMAKE_BUILD / "build.ninja").exists():
        _run([_tool("cmake"), "-S", str(BUILD / "source"), "-B", str(CMAKE_BUILD), *_options(architecture)], deadline)
    _run([_tool("ninja"), "-C", str(CMAKE_BUILD), f"-j{jobs}", "llama-server"], deadline)
    return _describe()


def install_packages() -> None:
    """Install the wheels of the parcel into a folder, once, and say which version of ours they go with."""
    if (SITE / "installed").exists():
        return
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    wheels = [str(wheel) for wheel in sorted(WHEELS.glob("*.whl"))]
    done = subprocess.run(
        [*command, "--upgrade", "--target", str(SITE), *wheels], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(f"The packages cannot be installed: {done.stderr.strip()[-500:]}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = SITE / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    ours.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (ours / "METADATA").write_text(metadata, encoding="utf-8")
    (SITE / "installed").touch()


def python_environment() -> dict[str, str]:
    """Return the environment in which Python finds the packages and this checkout."""
    path = [str(SITE), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1"}


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive once: what is compiled is older than sources that are unpacked again."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(unfinished, filter="data")
    unfinished.replace(folder)


def _tool(name: str) -> str:
    """Return the machine's own program, or ours."""
    return shutil.which(name) or str(BUILD / "tools" / "bin" / name)


def _options(architecture: str | None) -> list[str]:
    number = (PARCEL / "build-number").read_text(encoding="ascii")
    options = [*_OPTIONS, f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", f"-DLLAMA_BUILD_NUMBER={number}"]
    if architecture == "cpu":
        return options
    chosen = architecture or compute_capability()
    return [*options, *_CUDA_OPTIONS, f"-DCMAKE_CUDA_ARCHITECTURES={chosen}", *find_toolkit().options]


def _run(command: Sequence[str], deadline: float) -> None:
    """Run a command until the deadline, its output in the log. Raises BenchmarkError with what it said last."""
    with LOG.open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            code: int | None = process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
            process.terminate()  # ninja ends its compilers, and deletes what they have not finished
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if code == 0:
        return
    said = LOG.read_bytes()[began:].decode(errors="replace")
    if code is None:
        raise BenchmarkError(f"The time was over after {progress(said)}. Called again, `build` goes on from there.")
    raise BenchmarkError(f"{Path(command[0]).name} failed with {code}:\n{said.strip()[-3000:]}")


def progress(output: str) -> str:
    """Return how far ninja has come by its output."""
    steps = _PROGRESS.findall(output)
    return f"{steps[-1][0]} of {steps[-1][1]} steps" if steps else "no step"


def _describe() -> str:
    command = [str(LLAMA_SERVER), "--list-devices"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{LLAMA_SERVER} does not run: {(done.stderr or done.stdout).strip()[-500:]}")
    return f"{LLAMA_SERVER}\n{done.stdout.strip()}"
