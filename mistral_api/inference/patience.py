"""How long a request waits for a model server that is loading, restarting or dying."""

from __future__ import annotations

import time
from collections.abc import Callable

from mistral_api.errors import ModelServerLost, ModelUnavailable

# How often a request that waits tries again.
RETRY_SECONDS = 0.1
# A killed server takes connections, and drops them, until the system has released its memory.
DYING_SECONDS = 3.0


class RetryPolicy:
    """The tries of one request: each method sleeps a moment before the next one, or raises."""

    def __init__(self, wait_seconds: float, hang_seconds: float, given_up: Callable[[], str | None]) -> None:
        """``given_up`` says why nobody will start the model server again, or None while it may come;
        ``hang_seconds``: after so long a supervisor may have ended the server because of this very request."""
        self._hang_seconds = hang_seconds
        self._tried_at = time.monotonic()
        self._deadline = time.monotonic() + wait_seconds
        self._given_up = given_up
        self._lost_until: float | None = None
        self._death_seen = False

    def after_unavailable(self, error: ModelUnavailable) -> None:
        """Nobody listens, or the model is being loaded. Raises ``error`` when it has taken too long."""
        self._death_seen = self._lost_until is not None
        reason = self._given_up()
        if reason is not None:
            raise ModelUnavailable(reason, retry_after=30) from error
        self._pause(error, self._deadline)

    def after_lost(self, error: ModelServerLost) -> None:
        """It hung up before it answered anything: its end, unless the request itself is what kills it.

        Raises ``error`` when a server that came back was lost too, when one hangs up for longer than dying, or
        waiting, may take, and when it has had the request for so long that it may have hung because of it.
        """
        if self._death_seen or time.monotonic() - self._tried_at >= self._hang_seconds:
            raise error
        if self._lost_until is None:
            self._lost_until = min(time.monotonic() + DYING_SECONDS, self._deadline)
        self._pause(error, self._lost_until)

    def _pause(self, error: Exception, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise error
        time.sleep(RETRY_SECONDS)
        self._tried_at = time.monotonic()
