"""A Wine prefix of our own: a Windows with its drive C, and the processes in it.

Every program runs with its output in a pipe (under Wine a file is no valid handle for Python's standard streams) and
has a deadline. A process is known as one of ours by WINEPREFIX in its environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

CREATE_SECONDS = 300.0
END_SECONDS = 60.0
# Programs of Wine's own that run in every prefix.
WINE_PROGRAMS = (
    "wineserver", "wineserver64", "services.exe", "winedevice.exe", "explorer.exe", "plugplay.exe", "svchost.exe",
    "rpcss.exe", "conhost.exe", "wineboot.exe", "start.exe", "tabtip.exe",
)  # fmt: skip


# Without the first a program that loads user32.dll looks for a screen, ten seconds long in a service. With the others
# (Microsoft's own runtime, where a program brings it; nothing for menus, .NET, HTML) a process needs no variable.
REGISTRY = r"""REGEDIT4

[HKEY_CURRENT_USER\Software\Wine\Drivers]
"Graphics"="null"

[HKEY_CURRENT_USER\Software\Wine\DllOverrides]
"msvcp140"="native,builtin"
"vcomp140"="native,builtin"
"winemenubuilder.exe"=""
"mscoree"=""
"mshtml"=""
"""


class WineProcess:
    """A program under Wine, and what it has printed so far."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            ["wine", *command],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, name="wine-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 65536):
            self._chunks.append(chunk)

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return b"".join(self._chunks).decode("utf-8", errors="replace").replace("\r\n", "\n")

    @property
    def ended(self) -> bool:
        """Whether the program has ended. What it has started may still run."""
        return self._process.poll() is not None

    def say(self, line: str) -> None:
        """Write a line to the program's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def wait(self, seconds: float) -> int:
        """Return the exit code. Kill the program and raise TimeoutError where it takes longer."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise TimeoutError(f"still running after {seconds:.0f} s; printed:\n{tail(self.output)}") from error
        self._reader.join(1.0)  # not to the end of the pipe, which a process that lives on may have inherited
        return code

    def kill(self) -> None:
        """Kill this process alone, as the Task Manager does."""
        self._process.kill()
        self._process.wait(END_SECONDS)


class WinePrefix:
    """A Wine prefix. Use it as a context: everything in it is ended, and it is deleted, at the end."""

    def __init__(self, folder: Path) -> None:
        """The folder must not exist yet."""
        self.folder = folder
        self.drive = folder / "drive_c"
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "USER", "LOGNAME"}},
            "LANG": "C.UTF-8",  # names of files are Unicode
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEPREFIX": str(folder),
        }

    def __enter__(self) -> WinePrefix:
        self.folder.mkdir(parents=True)
        self.boot()
        return self

    def boot(self) -> None:
        """Start Wine's own programs, which stay between two of ours."""
        # The first program has Wine start them, and hands its output on: no pipe may be among it. It must not be
        # wineboot, which starts services.exe a second time: the two then wait for each other, ten seconds a service.
        registry = self.folder / "settings.reg"
        registry.write_text(REGISTRY, encoding="ascii")
        for command in (["wineserver", "--persistent"], ["wine", "reg", "import", f"Z:{registry}"]):
            subprocess.run(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=CREATE_SECONDS,
                check=True,
            )

    def __exit__(self, *_error: object) -> None:
        self.end_everything()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end_everything(self) -> None:
        """End every process of this prefix."""
        for option in ("--kill", "--wait"):  # until it has written the registry
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["wineserver", option],
                    env=self._environment,
                    timeout=END_SECONDS,
                    check=False,
                    capture_output=True,
                )
        for process in self.processes(everything=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self, command: Sequence[str], folder: Path, **variables: str) -> WineProcess:
        """Start a program in a folder of the drive, with these variables besides Windows' own."""
        return WineProcess(command, {**self._environment, **variables}, folder)

    def processes(self, *, everything: bool = False) -> list[psutil.Process]:
        """Return the programs that run in this prefix, by default without those of Wine's own."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("WINEPREFIX") == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    words = process.cmdline()
                    name = words[0].replace("\\", "/").rpartition("/")[2].lower() if words else ""
                    if everything or name not in WINE_PROGRAMS:
                        found.append(process)
        return found

    def processes_with(self, word: str) -> list[psutil.Process]:
        """Return the programs whose command line has a word."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word in each for each in process.cmdline()):
                    found.append(process)
        return found

    def wait_until_empty(self, seconds: float) -> list[str]:
        """Wait until no program runs; return the command lines of those that do after that time."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        lines = []
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                lines.append(" ".join(process.cmdline()))
        return lines


def tail(text: str, lines: int = 25) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.strip().splitlines()[-lines:])
