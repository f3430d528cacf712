"""Log lines: to the standard error stream, one line an event, and no warning so often that it fills the disk."""

from __future__ import annotations

import logging
import time

WARNING_SECONDS = 60.0
# The longest line of a log in characters, tracebacks aside.
LINE_LENGTH = 2000
_CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), 127]} | {9: "\t", 10: "\\n", 13: "\\r"}


class LineFormatter(logging.Formatter):
    """Formats one line an event. What a client can make as long as it likes, such as a path, is cut.

    A path may hold a line break, which must not begin a line of the log.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, without a traceback."""
        line = super().formatMessage(record).translate(_CONTROL)
        if len(line) <= LINE_LENGTH:
            return line
        return f"{line[:LINE_LENGTH]}… ({len(line) - LINE_LENGTH} more characters)"


def configure_logging(level: str) -> None:
    """Log to the standard error stream at this level, unless our caller has configured logging already."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    # The lines of these libraries at INFO tell an operator nothing.
    for library in ("urllib3", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # waitress warns of every single request that has to wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class ThrottledWarning:
    """A warning that is logged once a minute at most, however often it is raised."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._silent_until = float("-inf")

    def __call__(self, text: str, *arguments: object) -> None:
        """Log the warning, unless one was logged less than a minute ago."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + WARNING_SECONDS
            self._log.warning(text, *arguments)
