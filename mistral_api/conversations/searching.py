"""What of a message can be searched, and how a search is put to PostgreSQL's text index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, exists, func, literal_column, select, union

from mistral_api.tables.conversation import Conversation, Message

# A text vector holds at most a megabyte of words (PostgreSQL's documentation, section 12.11), and a
# character takes up to four bytes.
SEARCHED_CHARACTERS = 200_000
# PostgreSQL's text search configuration that knows no language: words are found as they are written, in any case.
CONFIGURATION = "simple"
# Not a parameter: PostgreSQL would take it for text.
_CONFIGURATION: ColumnElement[Any] = literal_column(f"'{CONFIGURATION}'")


def searchable_text(content: Any) -> str | None:
    """The text of a message, or None where it has none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:SEARCHED_CHARACTERS]


def words_of(search: str) -> ColumnElement[Any]:
    """What a user types into a search box: words, "phrases in quotes", OR, and -words that must not be there."""
    return func.websearch_to_tsquery(_CONFIGURATION, search)


def title_words(title: str | None) -> ColumnElement[Any]:
    """The words of a title, as ``conversations.search`` holds them."""
    return func.to_tsvector(_CONFIGURATION, title)


def matches_query(search: str) -> ColumnElement[bool]:
    """Whether a conversation is found: by one of its messages, or by its title. For a few conversations at a time."""
    words = words_of(search)
    # The offset keeps the text index out: for a common word it would be walked once for every conversation.
    said = select(Message.search).where(Message.conversation_id == Conversation.id).correlate(Conversation).offset(0)
    in_message = exists().where(said.subquery().c.search.bool_op("@@")(words))
    return Conversation.search.bool_op("@@")(words) | in_message


def any_message_matches(search: str) -> CTE:
    """The ids of all conversations that are found, straight from the text indexes."""
    words = words_of(search)
    ids = union(
        select(Message.conversation_id.label("id")).where(Message.search.bool_op("@@")(words)),
        select(Conversation.id).where(Conversation.search.bool_op("@@")(words)),
    )
    # Materialized, for PostgreSQL would otherwise look at the newest conversations one by one: its guess of
    # how often a rare word occurs is too high.
    return ids.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
