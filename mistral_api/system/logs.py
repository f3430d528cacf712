"""Log lines; a warning that does not repeat too often.

Where log lines go: the standard error stream, one line an event.

Saying that something goes wrong without filling a log, or a disk, with it.
"""

from __future__ import annotations

import logging
import time


def configure_logging(level: str) -> None:
    """Log to stderr at this level, unless whoever runs us has configured logging already."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What these libraries say at INFO tells an operator nothing.
    for library in ("urllib3", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # waitress warns of every single request that has to wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


WARN_SECONDS = 60.0


class ThrottledWarning:
    """A warning that is given once a minute, however often it is raised."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._silent_until = float("-inf")

    def __call__(self, text: str, *arguments: object) -> None:
        """Warn, unless that was done less than a minute ago."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + WARN_SECONDS
            self._log.warning(text, *arguments)
