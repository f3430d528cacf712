"""The sessions whose first request is running, and whether another request of theirs has ended meanwhile.

While the first exchange of a session is in the journal, all of the session is there, so that readers need not ask
PostgreSQL: unless another exchange of the session ended before it, and was delivered before it
(:attr:`Exchange.overtaken`). What other processes do is not known: any that was there while the request ran may have
answered one of its session.
"""

from __future__ import annotations

from collections.abc import Callable

from mistral_api.recording.exchange import RESPONSE_OBJECT, Exchange

Session = tuple[str, str | None]


class BegunSessions:
    """Notes with each exchange whether it was overtaken. Safe to use from many threads."""

    def __init__(self, processes_changed: Callable[[], int | None], has_others: Callable[[], bool]) -> None:
        """``processes_changed`` returns another number whenever a process comes or goes, None where nobody can tell.

        ``has_others`` returns whether others may be there. Both are called for exchanges alone that can be overtaken.
        """
        self._processes_changed = processes_changed
        self._has_others = has_others
        self._overtaken: dict[Session, bool] = {}
        self._changed: dict[Session, int | None] = {}

    def begin(self, exchange: Exchange) -> None:
        """Note that an exchange begins."""
        if exchange.begins_session:
            session = _session_of(exchange)
            self._overtaken[session] = False
            if _shows_session(exchange):
                self._changed[session] = self._processes_changed()

    def drop(self, exchange: Exchange) -> None:
        """Forget an exchange that has failed to begin."""
        if exchange.begins_session:
            self._overtaken.pop(_session_of(exchange), None)
            self._changed.pop(_session_of(exchange), None)

    def end(self, exchange: Exchange) -> None:
        """Note with the first exchange of a session whether another one ended before it, or may have done so."""
        session = _session_of(exchange)
        if exchange.begins_session:
            overtaken = self._overtaken.pop(session, False)
            exchange.overtaken = overtaken or (session in self._changed and self._may_be_overtaken(session))
        elif session in self._overtaken:
            self._overtaken[session] = True

    def _may_be_overtaken(self, session: Session) -> bool:
        """Return whether another process was there while the first exchange of a session was running."""
        before = self._changed.pop(session)
        return before is None or before != self._processes_changed() or self._has_others()


def _session_of(exchange: Exchange) -> Session:
    return exchange.owner, exchange.session_id


def _shows_session(exchange: Exchange) -> bool:
    """Return whether a client knows the session before the exchange ends: of a stream, or a response of an id."""
    return exchange.stream or (exchange.storing or {}).get("object") == RESPONSE_OBJECT
