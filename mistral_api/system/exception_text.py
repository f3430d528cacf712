"""An unexpected exception as text for a log: its type, its message and where it was raised, on one line.

No word of a request and no password is in it: what a message quotes is left out, since Python's own messages quote the
values that they complain about. PostgreSQL's first line quotes values too (``invalid input syntax for type uuid:
"x"``), and the lines after it quote rows (``DETAIL:``); SQLAlchemy adds the statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import FrameType, TracebackType

MESSAGE_LENGTH = 300
# Of a message that is longer only the beginning is looked at.
_READ_LENGTH = 2000
_MOST_CAUSES = 3
_MOST_FRAMES = 40
_PACKAGE = Path(__file__).parent.parent
_LEFT_OUT = "…"
# Before these words of PostgreSQL's messages a quoted word is a name of the schema, and no value.
_NAMED = "relation|table|column|constraint|schema|role|database|index|function|type|extension|parameter"
_QUOTED = re.compile(
    rf"""(?P<name>\b(?:{_NAMED})\ "[\w.]{{1,63}}")"""
    r"""|(?<!\w)'(?:[^'\\]|\\.)*(?:'(?!\w)|$)|(?<!\w)"(?:[^"\\]|\\.)*(?:"(?!\w)|$)""",
    re.VERBOSE,
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s@/]*@")


def exception_text(error: BaseException, *, stack: bool = False) -> str:
    """Return type, message and place of an exception and of what caused it; with ``stack`` its frames, newest last."""
    causes = " from ".join(_one(each) for each in _chain(error))
    place = _place(error.__traceback__)
    text = f"{causes} at {place}" if place else causes
    return f"{text} [{' > '.join(_frames(error.__traceback__))}]" if stack else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then its causes, a few at most."""
    current: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _one(error: BaseException) -> str:
    message = _message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        # The files that we open have no names that clients choose.
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - a message that cannot be had must not cost the line
        return f"its message cannot be shown ({type(failure).__name__})"
    return without_values(text)


def without_values(text: str) -> str:
    """Return the first line of a message without what it quotes, and cut."""
    line = next(iter(text[:_READ_LENGTH].strip().splitlines()), "")
    line = _PASSWORD_IN_URL.sub(f"{_LEFT_OUT}@", line)
    line = _QUOTED.sub(lambda found: found["name"] or f"{found[0][0]}{_LEFT_OUT}{found[0][0]}", line)
    return line if len(line) <= MESSAGE_LENGTH else line[:MESSAGE_LENGTH] + _LEFT_OUT


def _place(trace: TracebackType | None) -> str:
    """Return where the exception passed our code last, or where it was raised where it never did."""
    frames = list(walk_tb(trace))
    ours = [(frame, line) for frame, line in frames if Path(frame.f_code.co_filename).is_relative_to(_PACKAGE)]
    return _frame(*(ours or frames)[-1]) if frames else ""


def _frames(trace: TracebackType | None) -> list[str]:
    """Return the frames, outermost first; of many the newest ones."""
    return [_frame(frame, line) for frame, line in walk_tb(trace)][-_MOST_FRAMES:]


def _frame(frame: FrameType, line: int) -> str:
    code = frame.f_code
    return f"{_shown_file(Path(code.co_filename))}:{line} {code.co_name}"


def _shown_file(path: Path) -> str:
    """Return a file below our package, or below the folder of a library, without the path to it."""
    if path.is_relative_to(_PACKAGE):
        return path.relative_to(_PACKAGE.parent).as_posix()
    return "/".join(path.parts[-2:])
