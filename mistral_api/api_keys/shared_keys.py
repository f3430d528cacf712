"""A changed key is known in all API processes of a server before the change is answered.

Other servers on the same database hear of it by NOTIFY (``key_watcher``), and so would these, a moment too late: a
client may send a new key to any of them at once.
"""

from __future__ import annotations

import logging

from mistral_api.api_keys.key_watcher import KeyWatcher
from mistral_api.event_loop import waiting
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Siblings

log = logging.getLogger(__name__)

CHANGED, READ = "keys.changed", "keys.read"


class SharedKeys:
    """Has the watchers of all processes read the keys. For threads and tasks."""

    def __init__(self, watcher: KeyWatcher, siblings: Siblings) -> None:
        self._watcher = watcher
        self._siblings = siblings
        if siblings.hub is not None:
            siblings.hub.offer(self._offer)
        if siblings.first is not None:
            siblings.first.handle(READ, lambda: waiting.aside(watcher.refresh), waits=True)

    def _offer(self, peer: Peer) -> None:
        peer.handle(CHANGED, lambda: self._refresh(peer), waits=True)

    def refresh(self) -> None:
        """Have all processes let a key in, or refuse it, as the database says now. One that hangs is passed over."""
        self._refresh(None)
        if self._siblings.first is not None:
            _ask(self._siblings.first, CHANGED)

    def _refresh(self, changing: Peer | None) -> None:
        """Have this process read the keys, and all others whose hub it is, but the one that has changed a key."""
        waiting.aside(self._watcher.refresh)
        if self._siblings.hub is not None:
            for peer in self._siblings.hub.peers:
                if peer is not changing:
                    _ask(peer, READ)


def _ask(peer: Peer, method: str) -> None:
    try:
        peer.call(method)
    except PeerGone as error:
        log.info("%s hears of a changed key by the database alone: %s", peer.name, error)
