"""Lists of an owner's conversations, the last used first, and the search among them.

A conversation is found where one of its messages, in any branch, or its title matches. ``search_query`` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Subquery,
    exists,
    func,
    select,
    true,
    union,
)
from sqlalchemy.sql.selectable import LateralFromClause

from mistral_api.conversations.conversation import (
    ConversationSummary,
    conversation_summary,
)
from mistral_api.conversations.search_conditions import has_former_column, has_new_columns, matches_query
from mistral_api.conversations.search_query import SearchedText, SearchQuery
from mistral_api.conversations.search_snippet import make_snippet, match_snippet
from mistral_api.conversations.search_text import search_columns, searchable_text
from mistral_api.conversations.stored_message import MessageRecord
from mistral_api.database.tables.conversations import Conversation, Message, SearchMixin
from mistral_api.payload_types.chat import MessageContent
from mistral_api.wire.pagination import Page, list_body

# So many conversations are searched one by one before the indexes are asked for all of them.
SCANNED_FIRST = 200
# So many messages of a conversation are shown with their hits, the newest.
SHOWN_MATCHES = 3
CONVERSATION_COLUMNS = (
    Conversation.id,
    Conversation.owner,
    Conversation.session_id,
    Conversation.title,
    Conversation.attributes.label("attributes"),
    Conversation.head_id,
    Conversation.message_count,
    Conversation.created_at,
    Conversation.updated_at,
)
NEWEST_FIRST = (Conversation.updated_at.desc(), Conversation.id.desc())


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


def search_statement(listed: Select[Conversation], number: int, query: SearchQuery) -> Select[*tuple[Any, ...]]:
    """Return the search among the conversations that ``listed`` selects, in one round trip.

    First the newest ones are searched one by one, which suffices for a common word. Only where that finds fewer than
    ``number``, the indexes are asked for all. The rows are the newest ``number`` conversations with the newest
    messages that match; without a message where the title alone does.
    """
    newest = _first(listed.with_only_columns(Conversation.id), SCANNED_FIRST)
    among_newest = select(Conversation.id).where(Conversation.id.in_(select(newest.c.id)), matches_one_by_one(query))
    first = among_newest.order_by(*NEWEST_FIRST).limit(number).cte().prefix_with("MATERIALIZED")
    too_few = select(func.count()).select_from(first).scalar_subquery() < number
    matching = matching_conversations(query, too_few)
    among_all = listed.with_only_columns(Conversation.id).join(matching, matching.c.id == Conversation.id)
    found = union(select(first.c.id), among_all).subquery("found")
    return _with_messages(_first(select(Conversation.id).join(found, found.c.id == Conversation.id), number), query)


def search_each(listed: Select[Conversation], number: int, query: SearchQuery) -> Select[*tuple[Any, ...]]:
    """Return the same among few conversations: each is searched by itself."""
    matching = listed.with_only_columns(Conversation.id).where(matches_one_by_one(query))
    return _with_messages(_first(matching, number), query)


def _with_messages(page: Subquery, query: SearchQuery) -> Select[*tuple[Any, ...]]:
    messages = _found_messages(query)
    return (
        select(
            *CONVERSATION_COLUMNS,
            messages.c.id.label("message_id"),
            messages.c.role.label("message_role"),
            messages.c.content.label("message_content"),
        )
        .join(page, page.c.id == Conversation.id)
        .outerjoin(messages, true())
        .order_by(*NEWEST_FIRST, messages.c.sequence.desc())
    )


def _first(conversations: Select[Any], number: int) -> Subquery:
    return conversations.order_by(*NEWEST_FIRST).limit(number).subquery()


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
    return ids.cte().prefix_with("MATERIALIZED", dialect="postgresql")


def _found_messages(query: SearchQuery) -> LateralFromClause:
    messages = _messages_of_conversation()
    matching = select(messages.c.id, messages.c.role, messages.c.content, messages.c.sequence)
    newest = matching.where(matches_query(messages.c, query)).order_by(messages.c.sequence.desc())
    return newest.limit(SHOWN_MATCHES).lateral("message")


def title_match(query: SearchQuery, title: str | None) -> list[SearchMatch]:
    """Return the match in a title, if there is one."""
    snippet = match_snippet(query, title)
    return [] if snippet is None else [{"message_id": None, "role": None, "snippet": snippet}]


def message_match(query: SearchQuery, message_id: UUID | str, role: str, content: MessageContent) -> SearchMatch:
    """Return the match in a message that PostgreSQL has found."""
    text = SearchedText(searchable_text(content) or "")
    return {"message_id": str(message_id), "role": role, "snippet": make_snippet(query, text)}


def matching_messages(query: SearchQuery, messages: Iterable[MessageRecord]) -> list[SearchMatch]:
    """Return the matches in messages that PostgreSQL does not have yet, by the same rules."""
    found = []
    for message in messages:
        snippet = match_snippet(query, searchable_text(message.content))
        if snippet is not None:
            match: SearchMatch = {"message_id": str(message.id), "role": message.role, "snippet": snippet}
            found.append(match)
    return found
