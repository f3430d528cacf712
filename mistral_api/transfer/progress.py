"""What an operator sees of a transfer while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Shows the steps of a transfer, and how far a step is."""

    def step(self, sentence: str) -> None:
        """Show what begins now."""

    def counting(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a step of ``total`` units; the function that this gives takes how many more are done."""
