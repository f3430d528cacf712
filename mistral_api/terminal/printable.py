"""Text of a model, or of anybody else, as it may be written to a terminal.

A terminal obeys control characters: those of C0 and C1 (ECMA-48) begin the sequences that move the cursor, change the
title or write the clipboard (xterm's OSC 52). Every one but tab and line feed is made visible instead: those of C0 as
the picture that Unicode has for it (U+2400 and up), those of C1 as an escape. One character decides, never a whole
sequence, so it makes no difference where a text is cut into pieces.
"""

from __future__ import annotations

_CONTROL_PICTURES, _PICTURE_OF_DELETE = 0x2400, "\u2421"
_VISIBLE = {code: chr(_CONTROL_PICTURES + code) for code in range(0x20) if chr(code) not in "\t\n\r"}
_VISIBLE |= {0x7F: _PICTURE_OF_DELETE} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_PICTURE_OF_RETURN = chr(_CONTROL_PICTURES + ord("\r"))
_HIGH_SURROGATES, _SURROGATES = ("\ud800", "\udbff"), ("\ud800", "\udfff")


class PrintableStream:
    """Makes the pieces of one text printable. Only a pair that may be cut in two waits for the next piece."""

    def __init__(self) -> None:
        self._waiting = ""

    def feed(self, piece: str) -> str:
        """Return what can be printed of the text so far and was not returned before."""
        text, self._waiting = self._waiting + piece, ""
        if text and (text[-1] == "\r" or _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]):
            text, self._waiting = text[:-1], text[-1]
        return _printable(text)

    def end(self) -> str:
        """Return what still waits, at the end of the text."""
        text, self._waiting = self._waiting, ""
        return _printable(text)


def printable(text: str) -> str:
    """Return a whole text as it may be printed; it may have line breaks."""
    return _printable(text)


def printable_line(text: str) -> str:
    """Return a text as it may be printed within one line."""
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    if any(_SURROGATES[0] <= character <= _SURROGATES[1] for character in text):
        # JSON may spell a character as two escapes, or have half of one, which no encoding can write.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\r\n", "\n").replace("\r", _PICTURE_OF_RETURN).translate(_VISIBLE)
