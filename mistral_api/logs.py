"""Where log lines go: the standard error stream, one line an event."""

from __future__ import annotations

import logging


def configure_logging(level: str) -> None:
    """Log to stderr at this level, unless whoever runs us has configured logging already."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Pool chatter of the libraries tells an operator nothing at INFO.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
