"""What the user types: line editing and a history by readline where Python has it, and messages of several lines.

Windows has no readline; there the console edits lines and keeps a history of its own.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mistral_api.system.files import open_private

HISTORY_LINES = 1000
_QUOTES = '"""'
_PROMPT, _CONTINUED = ">>> ", "... "


def read_message(read_line: Callable[[str], str]) -> str:
    """Return a message: a line; lines joined by a backslash at the end; or what stands between ``\"\"\"``.

    ``read_line`` takes a prompt. Raises what it raises, such as EOFError at the end of the input.
    """
    line = read_line(_PROMPT)
    if line.lstrip().startswith(_QUOTES):
        return "\n".join(_quoted(line.lstrip()[len(_QUOTES) :], read_line)).strip("\n")
    return "\n".join(_continued(line, read_line))


def _quoted(line: str, read_line: Callable[[str], str]) -> Iterator[str]:
    while not line.rstrip().endswith(_QUOTES):
        yield line
        line = read_line(_CONTINUED)
    yield line.rstrip()[: -len(_QUOTES)]


def _continued(line: str, read_line: Callable[[str], str]) -> Iterator[str]:
    while _ends_with_backslash(line):
        yield line[:-1]
        line = read_line(_CONTINUED)
    yield line


def _ends_with_backslash(line: str) -> bool:
    """Two backslashes are one that was meant."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def history_file() -> Path:
    """Return where the typed lines are kept: where programs keep such things (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "mistral-api" / "chat-history"


class LineEditor:
    """Reads lines from a terminal. They are edited as readline does, and remembered in a file of the user's alone."""

    def __init__(self, words: Sequence[str], say: Callable[[str], object], *, keeps_history: bool) -> None:
        """``words`` are completed at the beginning of a line. ``say`` is told why lines are not remembered."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        readline = _load_readline()
        if readline is not None:
            _complete(readline, words)
        self._history = InputHistory(readline, say) if readline is not None and keeps_history else None

    def read_line(self, prompt: str) -> str:
        """Return what the user types. Raises EOFError at its end, and KeyboardInterrupt."""
        line = input(prompt)
        if self._history is not None:
            self._history.keep_newest()
        return line


def _load_readline() -> ModuleType | None:
    """Return the module that changes ``input``. Windows' Python has none, nor have some builds for other systems."""
    try:
        return importlib.import_module("readline")
    except ImportError:
        return None


def _complete(readline: ModuleType, words: Sequence[str]) -> None:
    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text)] if text.startswith("/") else []
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    # BSD's editline stands for readline in some builds of Python, with a syntax of its own.
    is_editline = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_editline else "tab: complete")


class InputHistory:
    """The lines that were typed, now and before: readline's list and the file behind it."""

    def __init__(self, readline: ModuleType, say: Callable[[str], object]) -> None:
        """Read the file. ``say`` is told where lines cannot be remembered."""
        self._readline, self._say = readline, say
        self._path: Path | None = history_file()
        readline.set_history_length(HISTORY_LINES)
        self._try(self._read)
        self._length = readline.get_current_history_length()

    def keep_newest(self) -> None:
        """Add the newest line to the file, if there is a new one."""
        length = self._readline.get_current_history_length()
        if length > self._length:
            self._try(self._append)
        self._length = length

    def _try(self, step: Callable[[Path], None]) -> None:
        """Do something with the file, and leave it alone from the first failure on."""
        if self._path is None:
            return
        try:
            step(self._path)
        except OSError as error:
            self._say(f"What you type is not remembered: {self._path}: {error.strerror}.")
            self._path = None

    def _read(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(open_private(str(path), os.O_CREAT | os.O_RDWR))
        path.chmod(0o600)
        self._readline.read_history_file(path)

    def _append(self, path: Path) -> None:
        """Append the newest line. The oldest beyond HISTORY_LINES are dropped."""
        if hasattr(self._readline, "append_history_file"):
            self._readline.append_history_file(1, path)
        else:  # BSD's editline
            self._readline.write_history_file(path)
