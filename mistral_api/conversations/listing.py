"""Lists of an owner's conversations, the last used first, and the search among them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select, tuple_, union
from sqlalchemy.orm import Session

from mistral_api.conversations.reading import find_conversation
from mistral_api.conversations.searching import finding
from mistral_api.tables.conversation import Conversation

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
    rows = list(session.scalars(_newest(found, query.get("q"), wanted)))
    return rows[: query["limit"]], len(rows) == wanted


def _newest(found: Select[Conversation], search: str | None, wanted: int) -> Select[Conversation]:
    """The newest of what was found. Each way of being found gives its own newest; the newest of all are among them."""
    if search is None:
        return found.order_by(*_NEWEST).limit(wanted)
    ways = [way.with_only_columns(Conversation.id).order_by(*_NEWEST).limit(wanted) for way in finding(found, search)]
    ids = union(*(select(way.subquery()) for way in ways))
    return select(Conversation).where(Conversation.id.in_(ids)).order_by(*_NEWEST).limit(wanted)
