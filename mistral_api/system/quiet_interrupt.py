"""Ctrl-C while a command still loads its modules: the process ends without a traceback. Standard library alone."""

from __future__ import annotations

import signal


def end_quietly_at_interrupt() -> None:
    """Have Ctrl-C end this process at once, until it handles signals itself. Ignored signals stay ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
