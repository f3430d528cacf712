"""Lists of conversations and the text search.

What of a message can be searched, and how a search is put to PostgreSQL's text index.

Lists of an owner's conversations, the last used first, and the search among them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, exists, func, literal_column, select, tuple_, union
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation
from mistral_api.database.tables.conversations import Conversation, Message

# A text vector holds at most a megabyte of words (PostgreSQL's documentation, section 12.11), and a
# character takes up to four bytes.
MAX_SEARCHED_CHARACTERS = 200_000
# PostgreSQL's text search configuration that knows no language: words are found as they are written, in any case.
TEXT_SEARCH_CONFIGURATION = "simple"
# Not a parameter: PostgreSQL would take it for text.
_CONFIGURATION: ColumnElement[Any] = literal_column(f"'{TEXT_SEARCH_CONFIGURATION}'")


def searchable_text(content: Any) -> str | None:
    """The text of a message, or None where it has none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:MAX_SEARCHED_CHARACTERS]


def search_query(search: str) -> ColumnElement[Any]:
    """What a user types into a search box: words, "phrases in quotes", OR, and -words that must not be there."""
    return func.websearch_to_tsquery(_CONFIGURATION, search)


def title_vector(title: str | None) -> ColumnElement[Any]:
    """The words of a title, as ``conversations.search`` holds them."""
    return func.to_tsvector(_CONFIGURATION, title)


def matches_query(search: str) -> ColumnElement[bool]:
    """Whether a conversation is found: by one of its messages, or by its title. For a few conversations at a time."""
    words = search_query(search)
    # The offset keeps the text index out: for a common word it would be walked once for every conversation.
    said = select(Message.search).where(Message.conversation_id == Conversation.id).correlate(Conversation).offset(0)
    in_message = exists().where(said.subquery().c.search.bool_op("@@")(words))
    return Conversation.search.bool_op("@@")(words) | in_message


def matching_conversations(search: str) -> CTE:
    """The ids of all conversations that are found, straight from the text indexes."""
    words = search_query(search)
    ids = union(
        select(Message.conversation_id.label("id")).where(Message.search.bool_op("@@")(words)),
        select(Conversation.id).where(Conversation.search.bool_op("@@")(words)),
    )
    # Materialized, for PostgreSQL would otherwise look at the newest conversations one by one: its guess of
    # how often a rare word occurs is too high.
    return ids.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")


# So many conversations are searched one by one before the index is asked for all of them.
SCANNED_FIRST = 200
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
    newest = found.order_by(*_NEWEST).limit(SCANNED_FIRST).subquery()
    first = _newest(
        session, select(Conversation).where(Conversation.id.in_(select(newest.c.id)), matches_query(search)), wanted
    )
    if len(first) == wanted:
        return first
    everywhere = matching_conversations(search)
    return _newest(session, found.join(everywhere, everywhere.c.id == Conversation.id), wanted)
