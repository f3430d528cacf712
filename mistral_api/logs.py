"""Where log lines go: the standard error stream, one line an event."""

from __future__ import annotations

import logging


def configure_logging(level: str) -> None:
    """Log to stderr at this level, unless whoever runs us has configured logging already."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What these libraries say at INFO tells an operator nothing.
    for library in ("urllib3", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # waitress warns of every single request that has to wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
