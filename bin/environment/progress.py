"""How far a set-up is: one line that is rewritten on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

BAR_WIDTH = 24


class Progress:
    """The progress through stages that are given with their share of the time."""

    def __init__(self, stages: dict[str, int], out: TextIO | None = None) -> None:
        self._shares = stages
        self._out = out or sys.stdout
        self._terminal = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._stage = ""

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees what happens within a stage."""
        return self._terminal

    def begin(self, stage: str) -> None:
        """Show that a stage begins."""
        self._stage = stage
        if self._terminal:
            self.show(0.0)
        else:
            number = list(self._shares).index(stage) + 1
            print(f"  {number}/{len(self._shares)} {stage}", file=self._out, flush=True)

    def show(self, fraction: float, detail: str = "") -> None:
        """Show how much of the stage is done, on a terminal alone."""
        if not self._terminal:
            return
        done = self._done(min(1.0, max(0.0, fraction)))
        filled = int(done * BAR_WIDTH)
        bar = "#" * filled + "-" * (BAR_WIDTH - filled)
        self._rewrite(f"  [{bar}] {int(done * 100):3d} %  {self._stage}{f': {detail}' if detail else ''}")

    def _done(self, fraction: float) -> float:
        """Return how much of the whole is done."""
        names = list(self._shares)
        before = sum(self._shares[name] for name in names[: names.index(self._stage)])
        return (before + self._shares[self._stage] * fraction) / sum(self._shares.values())

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._terminal and self._stage:
            self._rewrite("")
            self._out.write("\r")
            self._out.flush()

    def _rewrite(self, text: str) -> None:
        # The last column stays free: some terminals begin a new line after it.
        width = shutil.get_terminal_size().columns - 1
        self._out.write("\r" + text[:width].ljust(width))
        self._out.flush()
