"""What of a message can be searched, and how a search is put to PostgreSQL's text index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, literal_column

from mistral_api.tables.conversation import Conversation, Message

# A text vector holds at most a megabyte of words (PostgreSQL's documentation, section 12.11), and a
# character takes up to four bytes.
SEARCHED_CHARACTERS = 200_000


def searchable_text(content: Any) -> str | None:
    """The text of a message, or None where it has none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:SEARCHED_CHARACTERS]


def words_of(search: str) -> ColumnElement[Any]:
    """What a user types into a search box: words, "phrases in quotes", OR, and -words that must not be there.

    The ``simple`` configuration knows no language: words are found as they are written, in any case.
    """
    return func.websearch_to_tsquery(literal_column("'simple'"), search)


def finding(found: Select[Conversation], search: str) -> list[Select[Conversation]]:
    """Both ways for a conversation to be found: by its messages, by its title.

    They stay apart because PostgreSQL uses no index for an OR over two tables.
    """
    in_message = exists().where(Message.conversation_id == Conversation.id, Message.search.op("@@")(words_of(search)))
    return [found.where(in_message), found.where(Conversation.search.op("@@")(words_of(search)))]
