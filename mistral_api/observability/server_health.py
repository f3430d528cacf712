"""What ``/health`` says of the whole server and not of one API process, so that each of them says the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NotRequired, TypedDict

from mistral_api.embedded.postgres import EmbeddedHealth
from mistral_api.ipc.peer import PeerGone
from mistral_api.ipc.siblings import Siblings

ASK = "health.server"
# How long the first process may take to answer, which reads nothing for it.
ANSWER_SECONDS = 1.0


class ProcessesHealth(TypedDict):
    """The object ``processes`` of ``/health``: how many API processes there are to be, and how many serve.

    ``last_error`` says why one does not, and is null where all do; it is not for strangers.
    """

    status: Literal["ok", "attention"]
    configured: int
    running: int
    last_error: NotRequired[str | None]


class ServerHealth(TypedDict):
    """What the first API process knows. ``processes`` is None where nobody counts them: under another web server."""

    uptime_seconds: float
    processes: ProcessesHealth | None
    embedded_postgres: EmbeddedHealth | None


class ServerHealthReader:
    """Reads it, in the first process as in the others."""

    def __init__(self, siblings: Siblings, embedded: Callable[[], EmbeddedHealth | None]) -> None:
        """``embedded``: the state of the embedded PostgreSQL; only the first process knows one."""
        # Set by whoever starts processes.
        self.processes: Callable[[], ProcessesHealth] | None = None
        self._embedded = embedded
        self._first = siblings.first
        self._started_at = time.monotonic()
        if siblings.hub is not None:
            siblings.hub.offer(lambda peer: peer.handle(ASK, self._read_own))

    def read(self) -> ServerHealth:
        """Return the state now. Another process than the first asks that one."""
        if self._first is None:
            return self._read_own()
        try:
            answer: ServerHealth = self._first.call(ASK, seconds=ANSWER_SECONDS)
        except PeerGone as error:
            answer = self._read_own()
            answer["processes"] = {"status": "attention", "configured": 0, "running": 0, "last_error": str(error)}
        return answer

    def _read_own(self) -> ServerHealth:
        return {
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
            "processes": None if self.processes is None else self.processes(),
            "embedded_postgres": self._embedded(),
        }
