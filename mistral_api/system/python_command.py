"""Our own Python as another process, so that the process that is started is Python itself.

The ``python.exe`` of a virtual environment on Windows is a launcher: it starts the Python that the environment was made
with, as a child, and waits for it (CPython, PC/launcher.c). Whoever starts it knows the number of the launcher, whose
processor time says nothing, and whose end is not Python's. So the real program is started, with the variable by which
the launcher tells it the environment, as multiprocessing does it (CPython, Lib/multiprocessing/popen_spawn_win32.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

# Python reads it once at its start and removes it, so that it reaches no further process (CPython, Modules/getpath.c).
_LAUNCHER_VARIABLE = "__PYVENV_LAUNCHER__"


def without_launcher(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[list[str], Mapping[str, str] | None]:
    """Return a command, and its environment, such that the process it starts is the program itself.

    Both stay as they are unless the program is ``sys.executable`` and that is a launcher. None stands for our own
    environment, as in subprocess.
    """
    program = _program_behind_launcher()
    if command[0] != sys.executable or program is None:
        return list(command), environment
    variables = os.environ if environment is None else environment
    return [program, *command[1:]], {**variables, _LAUNCHER_VARIABLE: sys.executable}


def _program_behind_launcher() -> str | None:
    """Return the program that ``sys.executable`` starts; None where it is that program, or a link to it."""
    program: str = getattr(sys, "_base_executable", sys.executable)
    is_launcher = sys.platform == "win32" and os.path.normcase(program) != os.path.normcase(sys.executable)
    return program if is_launcher else None
