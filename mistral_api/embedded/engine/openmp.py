"""OpenMP, which llama.cpp computes with: the system's ``libgomp.so.1``, or where there is none a package's.

The wheel of xllamacpp takes it from the system, and a Debian with nothing but Python has none. The set-up then installs
cmeel-libomp (requirements-openmp.txt): LLVM's runtime, which has the functions of GNU's too, as a file of that name.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

LIBRARY: Final = "libgomp.so.1"
SEARCH_PATH: Final = "LD_LIBRARY_PATH"
# The folder within site-packages that cmeel's packages install into.
_FOLDER = Path("cmeel.prefix", "lib")


def with_openmp(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that is to find the library."""
    folder = None if system_has_openmp() else packaged_openmp()
    if folder is None:
        return dict(environment)
    paths = [path for path in (environment.get(SEARCH_PATH), str(folder)) if path]
    return {**environment, SEARCH_PATH: ":".join(paths)}


@cache
def system_has_openmp() -> bool:
    """Whether a process with our environment finds the library; elsewhere than on Linux none is needed."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def packaged_openmp() -> Path | None:
    """Return the folder of the package's library, where it is installed."""
    folders = (Path(sysconfig.get_path(name)) / _FOLDER for name in ("platlib", "purelib"))
    return next((folder for folder in folders if (folder / LIBRARY).exists()), None)
