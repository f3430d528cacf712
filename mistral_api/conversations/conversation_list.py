"""The list of an owner's conversations, the last used first, also searched; with what is still in the journal.

One statement reads a page of PostgreSQL's conversations, and those which pending turns are laid over. A conversation
with a pending turn stands where that turn puts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, Text, cast, false, func, literal_column, select, tuple_
from sqlalchemy.orm import aliased

from mistral_api.conversations.conversation import conversation_not_found
from mistral_api.conversations.pending_turns import CurrentConversation, ended_at, lay_over
from mistral_api.conversations.search import (
    CONVERSATION_COLUMNS,
    NEWEST_FIRST,
    SHOWN_MATCHES,
    FoundConversation,
    SearchMatch,
    matching_messages,
    message_match,
    search_each,
    search_statement,
    title_match,
)
from mistral_api.conversations.search_query import SearchQuery, parse_search
from mistral_api.conversations.stored_conversation import (
    CONVERSATION_NAMES,
    StoredConversations,
    conversation_of,
    conversation_parameters,
    json_rows,
    pending_columns,
    pending_parameters,
)
from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.conversations import Conversation
from mistral_api.errors import Unavailable
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.pending import PendingExchanges
from mistral_api.wire.queries import ConversationFilter

# So many sessions with pending turns, the last used, are laid over a page that is searched or begins further down.
MAX_PENDING_SESSIONS = 200


@dataclass(frozen=True, slots=True)
class PendingSession:
    """A session with exchanges that PostgreSQL does not have yet."""

    session_id: str
    exchanges: list[Exchange]

    @property
    def position(self) -> tuple[datetime, UUID]:
        """Where it stands in the list, if PostgreSQL has nothing newer."""
        return max(map(ended_at, self.exchanges)), self.exchanges[0].id


class ConversationLister:
    """Lists conversations. Safe to use from many threads."""

    def __init__(self, reads: DatabaseReads, pending: PendingExchanges) -> None:
        self._reads = reads
        self._pending = pending

    def list_page(self, owner: str, query: ConversationFilter) -> tuple[list[FoundConversation], bool]:
        """Return a page of an owner's conversations, the last used first, and whether more follow.

        Raises NotFound for ``after``, and Unavailable.
        """
        if "\0" in query.get("after", ""):  # PostgreSQL has no NUL character, not even in a parameter
            raise conversation_not_found(query["after"])
        sessions = self._pending_sessions(owner, query)
        exchanges = [exchange for session in sessions for exchange in session.exchanges]
        parameters = conversation_parameters(owner, [session.session_id for session in sessions])
        statement = _statement(owner, query, sessions)
        if not sessions:
            return _page(query, sessions, self._reads.rows(statement, {})[0])
        rows = self._reads.rows_if_reachable(statement, parameters | pending_parameters(exchanges))
        return _page(query, sessions, None if rows is None else rows[0])

    def _pending_sessions(self, owner: str, query: ConversationFilter) -> list[PendingSession]:
        """Return the sessions whose pending turns may change the page."""
        anywhere = query.get("after") is not None or query.get("q") is not None
        number = MAX_PENDING_SESSIONS if anywhere else query["limit"] + 1
        names = self._pending.sessions(owner, number)
        if query.get("after") is not None and query["after"] not in names:
            names.append(query["after"])
        sessions = [PendingSession(name, self._pending.of_session(owner, name)) for name in names]
        return [session for session in sessions if session.exchanges]


def _statement(owner: str, query: ConversationFilter, sessions: Sequence[PendingSession]) -> Select[*tuple[Any, ...]]:
    """Return the statement, whose one row has the page, the place of ``after``, and what pending turns need.

    ``found`` are those conversations with pending turns of which PostgreSQL has a message or a title that matches.
    """
    pending = {session.session_id: session for session in sessions}
    listed = select(Conversation).where(Conversation.owner == owner)
    stored = listed.where(Conversation.session_id.not_in(pending)) if pending else listed
    columns: list[ColumnElement[Any]] = pending_columns() if pending else []
    if query.get("after") is not None:
        moment, last_id = _position_of(owner, query["after"], pending.get(query["after"]))
        columns += [moment.label("after_at"), last_id.label("after_id")]
        stored = stored.where(tuple_(Conversation.updated_at, Conversation.id) < tuple_(moment, last_id))
    if query.get("since") is not None:
        stored = stored.where(Conversation.updated_at >= _since(query))
    columns.append(_as_json(_page_query(stored, query["limit"] + 1, query)).label("page"))
    search = _search_of(query)
    if search is not None and search.alternatives and pending:
        named = listed.where(Conversation.session_id.in_(pending))
        columns.append(_as_json(search_each(named, len(pending), search)).label("found"))
    return select(*columns)


def _position_of(
    owner: str, session_id: str, pending: PendingSession | None
) -> tuple[ColumnElement[datetime], ColumnElement[UUID]]:
    """Return where a conversation stands in the list: when it was used last, and its id. Both are null without one."""
    named = aliased(Conversation)
    own = (named.owner == owner, named.session_id == session_id)
    moment: ColumnElement[Any] = select(named.updated_at).where(*own).scalar_subquery()
    conversation_id: ColumnElement[Any] = select(named.id).where(*own).scalar_subquery()
    if pending is None:
        return moment, conversation_id
    last_used, transient_id = pending.position
    return func.greatest(moment, last_used), func.coalesce(conversation_id, transient_id)


def _page_query(listed: Select[Any], number: int, query: ConversationFilter) -> Select[*tuple[Any, ...]]:
    search = _search_of(query)
    if search is None:
        return listed.order_by(*NEWEST_FIRST).limit(number).with_only_columns(*CONVERSATION_COLUMNS)
    if not search.alternatives:
        return listed.where(false()).with_only_columns(*CONVERSATION_COLUMNS)
    return search_statement(listed, number, search)


def _search_of(query: ConversationFilter) -> SearchQuery | None:
    return None if query.get("q") is None else parse_search(query["q"])


def _as_json(page: Select[*tuple[Any, ...]]) -> ColumnElement[Any]:
    """Return the rows of a query as the text of a JSON array."""
    found = page.subquery("found")
    rows = func.json_agg(func.row_to_json(literal_column("found")))
    return select(cast(rows, Text)).select_from(found).scalar_subquery()


def _page(
    query: ConversationFilter, sessions: Sequence[PendingSession], row: Row[Any] | None
) -> tuple[list[FoundConversation], bool]:
    """Return the page. ``row`` is None without PostgreSQL: then nobody knows whether more follow."""
    search = _search_of(query)
    stored = StoredConversations(is_whole=False) if row is None else StoredConversations.from_row(row)
    current = _lay_over_all(stored, sessions)
    pending_ids = {each.conversation.id for each in current.values()}
    listed = [] if row is None else _found(search, json_rows(row.page))
    # A session id may lead to a conversation of another name.
    listed = [each for each in listed if each.conversation.id not in pending_ids]
    in_stored = {each.conversation.id: each.matches for each in _found(search, json_rows(getattr(row, "found", None)))}
    for each in {view.conversation.id: view for view in current.values()}.values():
        matches = _all_matches(search, each, in_stored.get(each.conversation.id) or [])
        if search is None or matches:
            listed.append(FoundConversation(each.conversation, matches))
    below = _place_of_after(query, current, row)
    if below is not None:
        listed = [each for each in listed if _position(each.conversation) < below]
    if query.get("since") is not None:
        listed = [each for each in listed if each.conversation.updated_at >= _since(query)]
    listed.sort(key=lambda each: _position(each.conversation), reverse=True)
    return listed[: query["limit"]], len(listed) > query["limit"] or row is None


def _found(search: SearchQuery | None, rows: Sequence[dict[str, Any]]) -> list[FoundConversation]:
    """Return the conversations of rows that PostgreSQL has found, each with one message that matches, or none."""
    found: list[FoundConversation] = []
    for _, group in groupby(rows, lambda row: row["id"]):
        of_conversation = list(group)
        conversation = conversation_of({name: of_conversation[0][name] for name in CONVERSATION_NAMES})
        matches = None
        if search is not None:
            matches = title_match(search, conversation.title) + [
                message_match(search, row["message_id"], row["message_role"], row["message_content"])
                for row in of_conversation
                if row["message_id"] is not None
            ]
        found.append(FoundConversation(conversation, matches))
    return found


def _all_matches(
    search: SearchQuery | None, current: CurrentConversation, in_stored: Sequence[SearchMatch]
) -> list[SearchMatch] | None:
    """Return where a conversation with pending turns is hit, its newest messages first."""
    if search is None:
        return None
    pending = matching_messages(search, reversed(current.pending.values()))
    messages = [*pending, *(match for match in in_stored if match["message_id"] is not None)]
    return title_match(search, current.conversation.title) + messages[:SHOWN_MATCHES]


def _lay_over_all(stored: StoredConversations, sessions: Sequence[PendingSession]) -> dict[str, CurrentConversation]:
    """Return the conversations with their pending turns, by session id. Several of these may lead to one."""
    by_conversation: dict[object, list[PendingSession]] = {}
    for session in sessions:
        conversation = stored.conversations.get(session.session_id)
        key = session.session_id if conversation is None else conversation.id
        by_conversation.setdefault(key, []).append(session)
    current: dict[str, CurrentConversation] = {}
    for group in by_conversation.values():
        view = _lay_over(stored, group)
        current |= {session.session_id: view for session in group if view is not None}
    return current


def _lay_over(stored: StoredConversations, sessions: Sequence[PendingSession]) -> CurrentConversation | None:
    conversation = stored.conversations.get(sessions[0].session_id)
    nodes = [node for node in stored.nodes if conversation is not None and node.conversation_id == conversation.id]
    exchanges = (exchange for session in sessions for exchange in session.exchanges)
    undelivered = [exchange for exchange in exchanges if exchange.id not in stored.delivered]
    if len(sessions) > 1:
        undelivered.sort(key=ended_at)
    return lay_over(conversation, nodes, undelivered)


def _place_of_after(
    query: ConversationFilter, current: dict[str, CurrentConversation], row: Row[Any] | None
) -> tuple[datetime, UUID] | None:
    """Return the place below which the page begins, None for the first page. Raises NotFound and Unavailable."""
    session_id = query.get("after")
    if session_id is None:
        return None
    if row is not None and row.after_at is not None:
        return row.after_at, row.after_id
    if session_id in current:
        return _position(current[session_id].conversation)
    if row is None:
        raise Unavailable("The database does not answer.", code="database_unavailable")
    raise conversation_not_found(session_id)


def _position(conversation: Conversation) -> tuple[datetime, UUID]:
    return conversation.updated_at, conversation.id


def _since(query: ConversationFilter) -> datetime:
    return datetime.fromtimestamp(query["since"], UTC)
