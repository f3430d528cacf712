"""What is deleted is forgotten: by this process, by those on the same DATA_DIR, and by all API processes of one server.

A process that deletes something writes a notice (``deletion_notices``), and all others read it before they use what is
in their memory. Of the API processes of one ``bin/serve`` the first one writes it for all, and has forgotten what was
deleted when the deletion is answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from mistral_api.conversations.deletion_notices import Deleted, DeletionNotices
from mistral_api.event_loop import waiting
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Siblings
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

TELL, LOOK = "deletions.tell", "deletions.look"


class Deletions:
    """Has memory forget. One for a process; safe to use from many threads."""

    def __init__(self, notices: DeletionNotices, siblings: Siblings) -> None:
        # Told what a process has deleted, this one or another.
        self.on_deleted: Callable[[Deleted], None] = lambda _deleted: None
        # Told the moment (Unix seconds) before which conversations were last used that the retention has deleted.
        self.on_retention: Callable[[float], None] = lambda _before: None
        self._notices = notices
        self._siblings = siblings
        # Held while notices are read, until all is forgotten that they name.
        self._forgetting = threading.Lock()
        self._warn = ThrottledWarning(log)
        if siblings.hub is not None:
            siblings.hub.offer(self._offer)
        if siblings.first is not None:
            siblings.first.handle(LOOK, self.forget_deleted, waits=True)

    def _offer(self, peer: Peer) -> None:
        def tell(*deleted: str) -> None:
            waiting.aside(partial(self._tell_here, Deleted(*deleted)))

        peer.handle(TELL, tell, waits=True)

    def tell(self, deleted: Deleted) -> None:
        """Have all processes forget what was deleted just now; those of this server have done so afterwards."""
        first = self._siblings.first
        if first is None:
            self._tell_here(deleted)
            return
        try:
            first.call(TELL, *deleted)
        except PeerGone as error:
            log.warning("the first API process may still use what was deleted: %s", error)
            self._write_notice(deleted)
        self.on_deleted(deleted)

    def _tell_here(self, deleted: Deleted) -> None:
        self.on_deleted(deleted)
        self._write_notice(deleted)
        self.forget_deleted()  # which reads the notice, so that it takes nothing away that comes later

    def _write_notice(self, deleted: Deleted) -> None:
        try:
            if deleted.session_id:
                self._notices.add(deleted.owner, deleted.session_id)
            else:
                self._notices.add_answer(deleted.owner, deleted.response_id)
        except OSError as error:
            log.warning("other processes may still use what was deleted: %s", error)

    def forget_deleted(self) -> None:
        """Forget what other processes have deleted by now. Where they have not, this costs a few microseconds."""
        try:
            with self._forgetting:
                notices = self._notices.read_new()
                for notice in notices:
                    self._forget(notice)
        except (OSError, ValueError, TypeError) as error:
            self._warn("it is not known what other processes delete: %s", error)
        else:
            if notices and self._siblings.hub is not None:
                for peer in self._siblings.hub.peers:
                    peer.tell(LOOK)

    def _forget(self, notice: Deleted | float) -> None:
        if isinstance(notice, float):
            self.on_retention(notice)
        else:
            self.on_deleted(notice)
