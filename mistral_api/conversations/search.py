"""Lists of an owner's conversations, the last used first, and the search among them.

A conversation is found where one of its messages, in any branch, or its title matches. ``search_query`` has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypedDict

from sqlalchemy import (
    CTE,
    ColumnElement,
    Row,
    Select,
    Subquery,
    exists,
    func,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import LateralFromClause

from mistral_api.conversations.conversation import (
    ConversationSummary,
    conversation_summary,
    find_conversation,
)
from mistral_api.conversations.search_conditions import has_former_column, has_new_columns, matches_query
from mistral_api.conversations.search_query import SearchedText, SearchQuery, parse_search
from mistral_api.conversations.search_snippet import make_snippet, match_snippet
from mistral_api.conversations.search_text import search_columns, searchable_text
from mistral_api.database.tables.conversations import Conversation, Message, SearchMixin
from mistral_api.wire.pagination import Page, list_body
from mistral_api.wire.queries import ConversationFilter

# So many conversations are searched one by one before the indexes are asked for all of them.
SCANNED_FIRST = 200
# So many messages of a conversation are shown with their hits, the newest.
SHOWN_MATCHES = 3
_NEWEST_FIRST = (Conversation.updated_at.desc(), Conversation.id.desc())


class SearchMatch(TypedDict):
    """Where a conversation was hit: a message, or the title where there is none. ``snippet`` is HTML."""

    message_id: str | None
    role: str | None
    snippet: str


class ListedConversation(ConversationSummary, total=False):
    """A conversation of the list; with ``matches`` where the list was searched."""

    matches: list[SearchMatch]


@dataclass(frozen=True, slots=True)
class FoundConversation:
    """A conversation of the list, and where a search hit it; ``matches`` is None where nothing was searched for."""

    conversation: Conversation
    matches: list[SearchMatch] | None = field(default=None)


def list_conversations(session: Session, owner: str, query: ConversationFilter) -> tuple[list[FoundConversation], bool]:
    """Return a page of an owner's conversations, the last used first, and whether more follow. Raises NotFound."""
    listed = select(Conversation).where(Conversation.owner == owner)
    if query.get("after"):
        last = find_conversation(session, owner, query["after"])
        position = tuple_(Conversation.updated_at, Conversation.id)
        listed = listed.where(position < tuple_(last.updated_at, last.id))
    if query.get("since") is not None:
        listed = listed.where(Conversation.updated_at >= datetime.fromtimestamp(query["since"], UTC))
    number = query["limit"] + 1
    if query.get("q") is None:
        rows = session.scalars(listed.order_by(*_NEWEST_FIRST).limit(number))
        found = [FoundConversation(row) for row in rows]
    else:
        found = _search(session, listed, number, parse_search(query["q"]))
    return found[: query["limit"]], len(found) == number


def conversation_list_body(found: Sequence[FoundConversation], has_more: bool) -> Page[ListedConversation]:
    """Return a page of a list of conversations, without their messages."""
    return list_body([_listed(each) for each in found], has_more, key="session_id")


def _listed(found: FoundConversation) -> ListedConversation:
    listed: ListedConversation = {**conversation_summary(found.conversation), "matches": found.matches or []}
    if found.matches is None:
        del listed["matches"]
    return listed


def set_search_columns(row: SearchMixin, text: str | None) -> None:
    """Let a row be found by another text, the text of its message or its title."""
    columns = search_columns(text)
    row.search_text, row.search_grams, row.search = columns["search_text"], columns["search_grams"], None


def _search(session: Session, listed: Select[Conversation], number: int, query: SearchQuery) -> list[FoundConversation]:
    if not query.alternatives:
        return []
    rows = session.execute(search_statement(listed, number, query))
    return [
        FoundConversation(conversation, _matches(query, conversation, list(messages)))
        for conversation, messages in groupby(rows, lambda row: row.Conversation)
    ]


def search_statement(listed: Select[Conversation], number: int, query: SearchQuery) -> Select[*tuple[Any, ...]]:
    """Return the search among the conversations that ``listed`` selects, in one round trip.

    First the newest ones are searched one by one, which suffices for a common word. Only where that finds fewer than
    ``number``, the indexes are asked for all. The rows are the newest ``number`` conversations with the newest
    messages that match; without a message where the title alone does.
    """
    newest = _first(listed.with_only_columns(Conversation.id), SCANNED_FIRST)
    among_newest = select(Conversation.id).where(Conversation.id.in_(select(newest.c.id)), matches_one_by_one(query))
    first = among_newest.order_by(*_NEWEST_FIRST).limit(number).cte("first").prefix_with("MATERIALIZED")
    too_few = select(func.count()).select_from(first).scalar_subquery() < number
    matching = matching_conversations(query, too_few)
    among_all = listed.with_only_columns(Conversation.id).join(matching, matching.c.id == Conversation.id)
    found = union(select(first.c.id), among_all).subquery("found")
    page = _first(select(Conversation.id).join(found, found.c.id == Conversation.id), number)
    messages = _matching_messages(query)
    return (
        select(Conversation, *messages.c)
        .join(page, page.c.id == Conversation.id)
        .outerjoin(messages, true())
        .order_by(*_NEWEST_FIRST, messages.c.sequence.desc())
    )


def _first(conversations: Select[Any], number: int) -> Subquery:
    return conversations.order_by(*_NEWEST_FIRST).limit(number).subquery()


def _messages_of_conversation() -> Subquery:
    columns = (
        Message.id, Message.role, Message.content, Message.sequence,
        Message.search_text, Message.search_grams, Message.search,
    )  # fmt: skip
    messages = select(*columns).where(Message.conversation_id == Conversation.id).correlate(Conversation)
    # The offset keeps the indexes of the search out: for a common word one would be walked for every conversation.
    return messages.offset(0).subquery("m")


def matches_one_by_one(query: SearchQuery) -> ColumnElement[bool]:
    """Return the condition that a message or the title of a conversation matches. For few conversations at a time."""
    messages = _messages_of_conversation()
    return matches_query(Conversation, query) | exists().where(matches_query(messages.c, query))


def matching_conversations(query: SearchQuery, condition: ColumnElement[bool]) -> CTE:
    """Return the ids of all conversations with a message or a title that matches, from the indexes.

    There are none where ``condition``, which depends on no row, is false.
    """
    ids = union(
        *(
            select(column.label("id")).where(condition, matches(table, query))
            for table, column in ((Message, Message.conversation_id), (Conversation, Conversation.id))
            for matches in (has_new_columns, has_former_column)
        )
    )
    # Otherwise PostgreSQL, whose estimate for a rare word is too high, would look at the newest conversations one by
    # one.
    return ids.cte("matching").prefix_with("MATERIALIZED", dialect="postgresql")


def _matching_messages(query: SearchQuery) -> LateralFromClause:
    messages = _messages_of_conversation()
    matching = select(messages.c.id, messages.c.role, messages.c.content, messages.c.sequence)
    newest = matching.where(matches_query(messages.c, query)).order_by(messages.c.sequence.desc())
    return newest.limit(SHOWN_MATCHES).lateral("message")


def _matches(query: SearchQuery, conversation: Conversation, rows: Sequence[Row[Any]]) -> list[SearchMatch]:
    """Return where a conversation was hit: in its title, and in its newest messages."""
    title = match_snippet(query, conversation.title)
    matches: list[SearchMatch] = [] if title is None else [{"message_id": None, "role": None, "snippet": title}]
    return matches + [
        {
            "message_id": str(row.id),
            "role": row.role,
            "snippet": make_snippet(query, SearchedText(searchable_text(row.content) or "")),
        }
        for row in rows
        if row.id is not None
    ]
