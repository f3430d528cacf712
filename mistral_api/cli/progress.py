"""How far something long is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from mistral_api.models.sizes import size_text

_STEPS = 10


class DownloadDisplay:
    """Shows a download on the standard error."""

    def say(self, sentence: str) -> None:
        """One line."""
        click.echo(sentence, err=True)

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """For one file; what it gives takes the number of bytes that are there."""
        label = f"{name} ({size_text(size)})"
        if not sys.stderr.isatty():
            yield _lines(label, size)
            return
        with click.progressbar(
            length=size, label=label, file=sys.stderr, update_min_steps=max(1, size // 1000), show_percent=True
        ) as bar:
            shown = 0

            def received(have: int) -> None:
                nonlocal shown
                bar.update(have - shown)
                shown = have

            yield received


def _lines(label: str, size: int) -> Callable[[int], None]:
    """A line for every tenth."""
    last = -1

    def received(have: int) -> None:
        nonlocal last
        step = have * _STEPS // size if size else _STEPS
        if step != last:
            last = step
            click.echo(f"{label}: {step * 100 // _STEPS} %", err=True)

    return received
