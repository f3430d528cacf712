"""NVIDIA's management library without a GPU: ``fake_nvml.c``, compiled, where the system's linker finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, skip_unless_ci

MIB = 1 << 20
TOTAL, RESERVED, USED = 8192 * MIB, 300 * MIB, 5000 * MIB


class FakeNvml:
    """A ``libnvidia-ml.so.1`` in its own folder, and the file that controls it."""

    def __init__(self, folder: Path) -> None:
        """Compile it. Without a compiler the test is skipped, and on CI (where nothing may be skipped) it fails."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if not sys.platform.startswith("linux"):
            pytest.skip("a library of ours takes the place of NVIDIA's by Linux's LD_LIBRARY_PATH")
        if compiler is None:
            skip_unless_ci("a C compiler is needed for a library that stands in for NVIDIA's")
        self._folder = folder
        self._control = folder / "control"
        self.configure()
        library = "libnvidia-ml.so.1"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{library}", "-o", str(folder / library),
             str(ROOT / "tests" / "support" / "fake_nvml.c")],
            check=True, timeout=60,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a program finds this library before any other."""
        paths = [str(self._folder), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
            "FAKE_NVML_CONTROL": str(self._control),
        }

    def configure(self, **words: int) -> None:
        """Replace all control words by these; their meaning is in the C source."""
        writing = self._control.with_suffix(".new")
        writing.write_text("".join(f"{word} {number}\n" for word, number in words.items()))
        os.replace(writing, self._control)
