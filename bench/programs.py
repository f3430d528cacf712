"""The two programs in C that measure: the fake engine and the generator of load, compiled at their first use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOURCES = Path(__file__).with_name("native")
COMPILE_SECONDS = 120
# What a measurement may take beyond its own length.
GRACE_SECONDS = 60


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message is one sentence for whoever has started it."""


class FakeEngine(NamedTuple):
    """A running fake engine on loopback."""

    port: int
    pid: int


def cache_folder() -> Path:
    """Return the folder, outside the repository, of what benchmarks compile and install."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mistral-api-bench"


def program(name: str) -> Path:
    """Return the compiled program of ``native/NAME.c``. Raises BenchmarkError where there is no compiler."""
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + (SOURCES / "common.h").read_bytes()).hexdigest()[:16]
    compiled = cache_folder() / f"{name}-{digest}"
    if not compiled.exists():
        _compile(source, compiled)
    return compiled


def _compile(source: Path, compiled: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchmarkError(
            "The fake engine is written in C: a C compiler named 'cc' is needed (Debian: gcc, libc6-dev)."
        )
    compiled.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=compiled.parent) as folder:
        made = Path(folder) / compiled.name
        command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", str(made), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS)
        if done.returncode != 0:
            raise BenchmarkError(f"{source.name} cannot be compiled here (it needs Linux): {done.stderr.strip()[:500]}")
        made.replace(compiled)


@contextlib.contextmanager
def fake_engine(**options: float) -> Iterator[FakeEngine]:
    """Run the fake engine until the end of the block; ``options`` are those of its command line."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen([program("engine"), "--die-with-parent", "1", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        yield FakeEngine(int(process.stdout.readline()), process.pid)
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def generate_load(kind: str, port: int, body: dict[str, Any], header: str | None = None, **options: float) -> Any:
    """Run the generator of load and return what it found, as its source describes.

    ``kind``: ``requests`` or ``streams``; ``header``: such as ``Authorization: Bearer x``.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(body, file)
        file.flush()
        done = subprocess.run(
            load_command(kind, port, file.name, header, **options),
            capture_output=True,
            text=True,
            check=False,
            timeout=options.get("deadline", 0) + options.get("seconds", 0) + GRACE_SECONDS,
        )
    if done.returncode != 0:
        raise BenchmarkError(f"The generator of load failed: {done.stderr.strip()[:500]}")
    return json.loads(done.stdout)


def load_command(kind: str, port: int, body: str | None, header: str | None = None, **options: float) -> list[str]:
    """Return the command line of the generator; ``body``: the file that has the request's body."""
    words = [str(program("load")), kind, "--port", str(port)]
    if body is not None:
        words += ["--body", body]
    if header is not None:
        words += ["--header", header]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words
