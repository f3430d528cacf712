"""Stop signals of a web server that is not ours and loads ``wsgi.py``: it may end at once without cleaning up.

``waitress-serve`` leaves SIGTERM and SIGHUP to the system, which then ends the process without running what is
registered with ``atexit``: an embedded PostgreSQL would stay behind. It does end in order by SystemExit and
KeyboardInterrupt (waitress/server.py, ``BaseWSGIServer.run``), as do others.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from mistral_api.system.exit_codes import ENDED_BY_SIGNAL
from mistral_api.system.processes import stop_signals


@contextlib.contextmanager
def exit_at_stop_signals() -> Iterator[None]:
    """Have a stop signal raise SystemExit, or KeyboardInterrupt for Ctrl-C: during the block at its end.

    Leaves those signals alone that another handler has, or that are ignored, and outside of the main thread all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    exit_signals = _ExitSignals()
    exit_signals.install()
    yield
    exit_signals.raise_from_now_on()


class _ExitSignals:
    """The handlers. The first signal ends the process, further ones are ignored, so that its end is not disturbed."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._raises = False

    def install(self) -> None:
        """Take the signals that nobody has taken."""
        for each in stop_signals():
            if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(each, self._handle)

    def raise_from_now_on(self) -> None:
        """End the process at the next signal; at once where one has come already."""
        self._raises = True
        if self._received is not None:
            raise SystemExit(ENDED_BY_SIGNAL + self._received)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is not None:
            return
        self._received = number
        if self._raises:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(ENDED_BY_SIGNAL + number)
