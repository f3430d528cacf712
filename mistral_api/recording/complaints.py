"""Saying that something goes wrong without filling a log, or a disk, with it."""

from __future__ import annotations

import logging
import time

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
