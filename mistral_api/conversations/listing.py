"""Lists of an owner's conversations, the last used first, and the search among them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from mistral_api.conversations.reading import find_conversation
from mistral_api.conversations.searching import any_message_matches, matches_query
from mistral_api.tables.conversation import Conversation

# So many conversations are searched one by one before the index is asked for all of them.
LOOKED_AT_FIRST = 200
_NEWEST = (Conversation.updated_at.desc(), Conversation.id.desc())


def list_conversations(session: Session, owner: str, query: dict[str, Any]) -> tuple[list[Conversation], bool]:
    """An owner's conversations, the last used first, and whether there are more.

    ``query`` holds ``limit`` and maybe ``after`` (a session id), ``q`` (words to find) and ``since``
    (Unix seconds).
    """
    found = select(Conversation).where(Conversation.owner == owner)
    if query.get("after"):
        last = find_conversation(session, owner, query["after"])
        position = tuple_(Conversation.updated_at, Conversation.id)
        found = found.where(position < tuple_(last.updated_at, last.id))
    if query.get("since") is not None:
        found = found.where(Conversation.updated_at >= datetime.fromtimestamp(query["since"], UTC))
    wanted = query["limit"] + 1
    search = query.get("q")
    rows = _newest(session, found, wanted) if search is None else _search(session, found, wanted, search)
    return rows[: query["limit"]], len(rows) == wanted


def _newest(session: Session, found: Select[Conversation], wanted: int) -> list[Conversation]:
    return list(session.scalars(found.order_by(*_NEWEST).limit(wanted)))


def _search(session: Session, found: Select[Conversation], wanted: int, search: str) -> list[Conversation]:
    """A common word is soon found in enough of the newest conversations; for a rare one the index knows all places."""
    newest = found.order_by(*_NEWEST).limit(LOOKED_AT_FIRST).subquery()
    first = _newest(
        session, select(Conversation).where(Conversation.id.in_(select(newest.c.id)), matches_query(search)), wanted
    )
    if len(first) == wanted:
        return first
    everywhere = any_message_matches(search)
    return _newest(session, found.join(everywhere, everywhere.c.id == Conversation.id), wanted)
