"""What the operator sees of a download: a progress bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from mistral_api.system.byte_sizes import format_size

# Lines of progress for each file, where there is no terminal.
_STEPS = 10


class DownloadDisplay:
    """Shows a download on the standard error stream."""

    def show(self, sentence: str) -> None:
        """Print one line."""
        click.echo(sentence, err=True)

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """Show the progress of one file; the function that this gives takes the number of bytes received so far."""
        label = f"{name} ({format_size(size)})"
        if not sys.stderr.isatty():
            yield _print_steps(label, size)
            return
        with click.progressbar(
            length=size, label=label, file=sys.stderr, update_min_steps=max(1, size // 1000), show_percent=True
        ) as bar:
            displayed = 0

            def update(received: int) -> None:
                nonlocal displayed
                bar.update(received - displayed)
                displayed = received

            yield update


def _print_steps(label: str, size: int) -> Callable[[int], None]:
    """Print a line for every tenth."""
    last = -1

    def update(received: int) -> None:
        nonlocal last
        step = received * _STEPS // size if size else _STEPS
        if step != last:
            last = step
            click.echo(f"{label}: {step * 100 // _STEPS} %", err=True)

    return update
