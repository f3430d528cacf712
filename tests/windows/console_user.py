"""Run a Python program in a console and press Ctrl-C when told to: ``console_user.py PROGRAM ARGUMENT…``.

Windows' Python runs this. A line on the standard input presses Ctrl-C, which Windows sends to every process of a
console, so to this one too. A console without a window needs no screen.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

CTRL_C_EVENT = 0
CREATE_NO_WINDOW = 0x08000000
INSIDE = "--inside"


def main() -> int:
    """Return the program's exit code."""
    if sys.argv[1] != INSIDE:
        # With a console of its own a program has that one's standard streams, unless it is given others.
        command = [sys.executable, __file__, INSIDE, *sys.argv[1:]]
        return subprocess.call(
            command, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr, creationflags=CREATE_NO_WINDOW
        )
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore] # not on Linux
    kernel.SetConsoleCtrlHandler(None, False)  # a process that ignores Ctrl-C hands that on
    with subprocess.Popen([sys.executable, *sys.argv[2:]], stdin=subprocess.DEVNULL) as child:
        sys.stdin.readline()
        kernel.SetConsoleCtrlHandler(None, True)  # from here on, and for this process alone
        if not kernel.GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0):
            print(f"Ctrl-C cannot be sent: error {kernel.GetLastError()}", flush=True)
            child.kill()
        return child.wait()


if __name__ == "__main__":
    sys.exit(main())
