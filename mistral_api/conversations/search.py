"""Lists of an owner's conversations, the last used first, and the text search among them.

A message is searched by its text, a conversation also by its title, in PostgreSQL's text indexes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, exists, func, literal_column, select, union

from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.payload_types.chat import MessageContent

# A text vector holds at most a megabyte of words (PostgreSQL's documentation, section 12.11), and a character takes
# up to four bytes.
MAX_SEARCHED_CHARACTERS = 200_000
# PostgreSQL's text search configuration that knows no language: words are found as they are written, in any case.
TEXT_SEARCH_CONFIGURATION = "simple"
# A literal, since PostgreSQL would take a parameter for text.
_CONFIGURATION: ColumnElement[Any] = literal_column(f"'{TEXT_SEARCH_CONFIGURATION}'")
# So many conversations are searched one by one before the index is asked for all of them.
SCANNED_FIRST = 200
NEWEST_FIRST = (Conversation.updated_at.desc(), Conversation.id.desc())


def search_statement(listed: Select[Conversation], number: int, words: str) -> Select[Conversation]:
    """Return the search among the conversations that ``listed`` selects, in one round trip.

    First the newest ones are searched one by one, which suffices for a common word. Only where that finds fewer than
    ``number``, the index is asked for all.
    """
    newest = listed.with_only_columns(Conversation.id).order_by(*NEWEST_FIRST).limit(SCANNED_FIRST).subquery()
    among_newest = select(Conversation.id).where(Conversation.id.in_(select(newest.c.id)), matches_query(words))
    first = among_newest.order_by(*NEWEST_FIRST).limit(number).cte().prefix_with("MATERIALIZED")
    too_few = select(func.count()).select_from(first).scalar_subquery() < number
    matching = matching_conversations(words)
    among_all = listed.with_only_columns(Conversation.id).join(matching, matching.c.id == Conversation.id)
    found = union(select(first.c.id), among_all.where(too_few)).subquery("found")
    return select(Conversation).join(found, found.c.id == Conversation.id).order_by(*NEWEST_FIRST).limit(number)


def matches_text(words: str, text: str) -> bool:
    """Return whether a text that PostgreSQL does not have yet matches, by the same rules."""
    return all(word in text.casefold() for word in words.casefold().split())


def matches_query(words: str) -> ColumnElement[bool]:
    """Return the condition that a message or the title of a conversation matches. For few conversations at a time."""
    query = search_query(words)
    # The offset keeps the text index out: for a common word it would be walked once for every conversation.
    messages = (
        select(Message.search).where(Message.conversation_id == Conversation.id).correlate(Conversation).offset(0)
    )
    in_message = exists().where(messages.subquery().c.search.bool_op("@@")(query))
    return Conversation.search.bool_op("@@")(query) | in_message


def matching_conversations(words: str) -> CTE:
    """Return the ids of all conversations with a message or a title that matches, from the text indexes."""
    query = search_query(words)
    ids = union(
        select(Message.conversation_id.label("id")).where(Message.search.bool_op("@@")(query)),
        select(Conversation.id).where(Conversation.search.bool_op("@@")(query)),
    )
    # Otherwise PostgreSQL, whose estimate for a rare word is too high, would look at the newest conversations one by
    # one.
    return ids.cte().prefix_with("MATERIALIZED", dialect="postgresql")


def search_query(words: str) -> ColumnElement[Any]:
    """Return the text of a search box as a query: words, "phrases in quotes", OR, and -words that must be absent."""
    return func.websearch_to_tsquery(_CONFIGURATION, words)


def title_vector(title: str | None) -> ColumnElement[Any]:
    """Return the words of a title, as ``conversations.search`` holds them."""
    return func.to_tsvector(_CONFIGURATION, title)


def searchable_text(content: MessageContent) -> str | None:
    """Return the text of a message's content, cut to a length, or None where there is none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:MAX_SEARCHED_CHARACTERS]
