"""What all API processes of one server say alike: since when it serves, and the secret of its salts."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass

from mistral_api.ipc.peer import PeerGone
from mistral_api.ipc.siblings import Siblings

log = logging.getLogger(__name__)

IDENTITY = "server.identity"


@dataclass(frozen=True, slots=True)
class _Facts:
    """``started_at``: in Unix seconds."""

    started_at: int
    secret: bytes


class ServerIdentity:
    """The first process has made it, and the others ask once. Safe to use from many threads."""

    def __init__(self, siblings: Siblings) -> None:
        self._first = siblings.first
        self._own = _Facts(int(time.time()), secrets.token_bytes(32))
        self._known = self._own if siblings.first is None else None
        if siblings.hub is not None:
            siblings.hub.offer(lambda peer: peer.handle(IDENTITY, self._tell))

    def _tell(self) -> tuple[int, str]:
        return self._own.started_at, self._own.secret.hex()

    def started_at(self) -> int:
        """Return when the server started, in Unix seconds."""
        return self._facts().started_at

    def secret(self) -> bytes:
        """Return 256 random bits, which nobody else knows."""
        return self._facts().secret

    def _facts(self) -> _Facts:
        """Return what is known; while the first process does not answer, what this one says instead."""
        if self._known is None and self._first is not None:
            try:
                started_at, secret = self._first.call(IDENTITY)
            except PeerGone as error:
                log.debug("what this process says of the server is its own: %s", error)
                return self._own
            self._known = _Facts(int(started_at), bytes.fromhex(secret))
        return self._known or self._own
