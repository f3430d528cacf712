"""What a conversation shows: answers as they arrive, thoughts dimmed, notices, failures.

Whatever comes from the server is made printable (``printable``). Colours are for terminals alone, and not where
NO_COLOR is set (https://no-color.org) or the terminal is dumb.
"""

from __future__ import annotations

import os
import sys

import click

from mistral_api.terminal.conversation import Answer
from mistral_api.terminal.printable import PrintableStream, printable, printable_line

# Nobody needs to be told that an answer takes a second.
_PATIENCE_SECONDS = 1.0


class Screen:
    """Writes to the standard output, and failures to the standard error stream."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._colours = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, text: str) -> None:
        """Write a text and end its line."""
        click.echo(printable(text))

    def notice(self, text: str) -> None:
        """Write a remark of this program."""
        click.echo(self.dimmed(printable(text)), color=self._colours)

    def remark(self, text: str) -> None:
        """Write a remark that is no part of the output: on the standard error stream where that is no terminal."""
        if self.is_terminal:
            self.notice(text)
        else:
            self.failure(text)

    def failure(self, sentence: str) -> None:
        """Say what went wrong."""
        click.echo(printable_line(sentence), err=True)

    def dimmed(self, text: str) -> str:
        """Return a text that is dimmed where there are colours."""
        return click.style(text, dim=True) if self._colours and text else text

    def write(self, text: str, *, dim: bool = False) -> None:
        """Write a piece of a line at once."""
        if text:
            click.echo(self.dimmed(text) if dim else text, nl=False, color=self._colours)

    @property
    def marks_thoughts(self) -> bool:
        """Whether thoughts need words around them, since they look like the answer."""
        return not self._colours


class AnswerDisplay:
    """Shows one answer while it arrives. Where the output is no terminal, it is the answer alone."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._text = PrintableStream()
        self._thinks = False
        self._at_line_start = True
        self._shown_wait = ""

    def waiting(self, seconds: float) -> None:
        """Show how long nothing has come."""
        if self._screen.is_terminal and seconds >= _PATIENCE_SECONDS:
            shown = f"… {seconds:.0f} s"
            if shown != self._shown_wait:
                self._screen.write(f"\r{shown}", dim=True)
                self._shown_wait = shown

    def reasoning(self, text: str) -> None:
        """Show a piece of what the model thinks."""
        if not self._screen.is_terminal:
            return
        self._end_wait()
        if not self._thinks:
            self._thinks = True
            if self._screen.marks_thoughts:
                self._screen.write("[thinking]\n")
        self._write(self._text.feed(text))

    def content(self, text: str) -> None:
        """Show a piece of the answer."""
        self._end_wait()
        self._end_thoughts()
        self._write(self._text.feed(text))

    def end(self) -> None:
        """End the last line, also of an answer that was stopped or cut."""
        self._end_wait()
        self._end_line()

    def _end_thoughts(self) -> None:
        if self._thinks:
            self._end_line()
            self._thinks = False
            self._screen.write("[answer]\n" if self._screen.marks_thoughts else "\n")

    def _end_line(self) -> None:
        self._write(self._text.end())
        if not self._at_line_start:
            self._screen.write("\n")
            self._at_line_start = True

    def _write(self, text: str) -> None:
        self._screen.write(text, dim=self._thinks)
        if text:
            self._at_line_start = text.endswith("\n")

    def _end_wait(self) -> None:
        if self._shown_wait:
            self._screen.write("\r" + " " * len(self._shown_wait) + "\r")
            self._shown_wait = ""


def statistics(answer: Answer) -> str:
    """Return what an answer took: ``12 tokens read (8 from the cache), 85 written, 23.4 tokens/s, …``."""
    usage, parts = answer.usage or {}, []
    if usage.get("prompt_tokens") is not None:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        parts.append(f"{usage['prompt_tokens']} tokens read" + (f" ({cached} from the cache)" if cached else ""))
        parts.append(f"{usage.get('completion_tokens')} written")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.1f} tokens/s")
    if answer.first_seconds is not None:
        parts.append(f"first token after {answer.first_seconds:.2f} s")
    return ", ".join([*parts, f"{answer.seconds:.1f} s in all"])


def cut_reason(answer: Answer) -> str | None:
    """Return why an answer is not whole, None for one that is."""
    if answer.stopped:
        return "stopped"
    return "the limit of tokens is reached" if answer.finish_reason == "length" else None
