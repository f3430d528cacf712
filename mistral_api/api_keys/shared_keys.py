"""A change of the API keys in one API process is true in all of one ``bin/serve`` before its client is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from mistral_api.event_loop import waiting
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub, Siblings

_CHANGED, _REFRESH = "keys.changed", "keys.refresh"
# How long a process is waited for. One that does not answer learns of the change as other servers do.
ANSWER_SECONDS = 5.0


class KeyChanges:
    """Has every process read the keys after a change. ``refresh`` has this one do so, and waits until it has."""

    def __init__(self, refresh: Callable[[], None], siblings: Siblings) -> None:
        self._refresh = refresh
        self._siblings = siblings
        if siblings.hub is not None:
            hub = siblings.hub
            hub.offer(lambda peer: peer.handle(_CHANGED, lambda: self._note_change(hub, peer), waits=True))
        if siblings.first is not None:
            siblings.first.handle(_REFRESH, self._refresh_aside, waits=True)

    def spread(self) -> None:
        """Have all processes have the keys as the database has them now, as far as they answer in time."""
        self._refresh()
        if self._siblings.hub is not None:
            _refresh_others(self._siblings.hub, None)
        if self._siblings.first is not None:
            with contextlib.suppress(PeerGone):
                self._siblings.first.call(_CHANGED, seconds=2 * ANSWER_SECONDS)

    def _note_change(self, hub: Hub, changing: Peer) -> None:
        """Have the first process, and all but the one that has told it, read the keys."""
        self._refresh_aside()
        _refresh_others(hub, changing)

    def _refresh_aside(self) -> None:
        waiting.aside(self._refresh)


def _refresh_others(hub: Hub, changing: Peer | None) -> None:
    for peer in hub.peers:
        if peer is not changing:
            with contextlib.suppress(PeerGone):
                peer.call(_REFRESH, seconds=ANSWER_SECONDS)
