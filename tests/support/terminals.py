"""A program in a terminal: a pseudo-terminal of its own, its keys pressed and its screen read by the test."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
# Ctrl-C at a prompt is pressed again after so long, so many times at most.
AGAIN_SECONDS, MOST_PRESSES = 1.0, 20


class Terminal:
    """A program that runs in a terminal. ``shown`` is everything that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self.process = process
        self.shown = ""
        self._keyboard = keyboard
        self._seen = 0
        self._rest = b""

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._keyboard, keys.encode())

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self.press(line + "\r")

    def expect(self, text: str, seconds: float = 20.0) -> str:
        """Wait until a text is shown behind what was expected before, and return what stands between. Else fail."""
        assert self._shows(text, seconds), f"{text!r} is not shown: {self.shown[self._seen :]!r}"
        found = self.shown.index(text, self._seen)
        between = self.shown[self._seen : found]
        self._seen = found + len(text)
        return between

    def interrupt_prompt(self, text: str) -> None:
        """Press Ctrl-C at a prompt, and again until a text is shown. Else fail.

        One that comes between the prompt and the wait for a key is noticed at the next key (CPython,
        Modules/readline.c, ``readline_until_enter_or_signal``).
        """
        for _ in range(MOST_PRESSES):
            self.press(CTRL_C)
            if self._shows(text, AGAIN_SECONDS):
                break
        self.expect(text, 0)

    def end(self, seconds: float = 20.0) -> int:
        """Read up to the end of the program, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it does not end: {self.shown!r}"
        return self.process.wait(timeout=seconds)

    def _shows(self, text: str, seconds: float) -> bool:
        """Read until a text is shown behind what was expected before, for so long at most. Return whether it is."""
        deadline = time.monotonic() + seconds
        while text not in self.shown[self._seen :]:
            if time.monotonic() >= deadline:
                return False
            assert self._read(), f"ended before {text!r}: {self.shown[self._seen :]!r}"
        return True

    def _read(self) -> bool:
        """Read what is written within a moment. Return False at the end."""
        ready, _, _ = select.select([self._keyboard], [], [], 0.1)
        if not ready:
            return True
        try:
            self._rest += os.read(self._keyboard, 65536)
        except OSError:  # Linux: the program has closed its side
            return False
        text = self._rest.decode(errors="ignore")
        self._rest = self._rest[len(text.encode()) :]
        self.shown += text
        return True


@contextlib.contextmanager
def terminal(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a program in a terminal, which is the controlling one of its session; end it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # setsid(1) with -c makes the terminal the controlling one, so that Ctrl-C reaches the program.
        ["/usr/bin/setsid", "-c", "-w", *command], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        os.close(ours)  # hangs up
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
