"""Stored chat completions (``store: true``): found, listed, changed and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    RowMapping,
    Select,
    Text,
    bindparam,
    delete,
    exists,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import Session, aliased

from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.stored import StoredCompletion
from mistral_api.errors import NotFound, Unavailable
from mistral_api.payload_types.chat import ChatMessage, ContentPart, Prompts
from mistral_api.payload_types.completions import Completion
from mistral_api.recording.exchange import COMPLETION_OBJECT, Exchange
from mistral_api.recording.pending import PendingExchanges
from mistral_api.recording.stored_object import stored_completion
from mistral_api.wire.pagination import Page, PageFilter, list_body, page_of
from mistral_api.wire.queries import CompletionFilter

_COLUMNS = (
    StoredCompletion.owner,
    StoredCompletion.id,
    StoredCompletion.created_at,
    StoredCompletion.model,
    StoredCompletion.attributes.label("attributes"),
    StoredCompletion.messages,
    StoredCompletion.body,
)
_BY_ID = select(*_COLUMNS).where(
    StoredCompletion.owner == bindparam("owner", type_=Text), StoredCompletion.id == bindparam("id", type_=Text)
)


class CompletionMessage(ChatMessage):
    """A message of a completion's request (OpenAI's ``ChatCompletionMessageList.data``), whose parts stand apart."""

    id: str
    content_parts: list[ContentPart] | Prompts | None


class CompletionReader:
    """Reads stored completions: those of PostgreSQL, and those that are still in the journal. Threads may share it."""

    def __init__(self, reads: DatabaseReads, pending: PendingExchanges) -> None:
        self._reads = reads
        self._pending = pending

    def find(self, owner: str, completion_id: str) -> StoredCompletion:
        """Return an owner's stored completion. Raises NotFound, also for another owner's, and Unavailable."""
        exchange = self._pending.stored_object(COMPLETION_OBJECT, owner, completion_id)
        if exchange is not None and (pending := pending_completion(exchange)) is not None:
            return pending
        # PostgreSQL has no NUL character, not even in a parameter.
        parameters = {"owner": owner, "id": completion_id}
        rows = self._reads.rows(_BY_ID, parameters) if "\0" not in completion_id else ()
        if not rows:
            raise completion_not_found(completion_id)
        return StoredCompletion(**rows[0]._mapping)

    def list_page(self, owner: str, query: CompletionFilter) -> tuple[list[StoredCompletion], bool]:
        """Return a page of an owner's stored completions, and whether more follow.

        Raises NotFound for ``after``, and Unavailable.
        """
        exchanges = self._pending.stored_objects(COMPLETION_OBJECT, owner)
        pending = {each.id: each for exchange in exchanges if (each := pending_completion(exchange)) is not None}
        last = pending.get(query["after"]) if query.get("after") is not None else None
        statement = _page_statement(owner, query, last)
        rows = self._reads.rows_if_reachable(statement, {}) if pending else self._reads.rows(statement, {})
        return _page(query, pending, last, rows)


def pending_completion(exchange: Exchange) -> StoredCompletion | None:
    """Return the completion that an exchange is stored as, as PostgreSQL will have it."""
    body = stored_completion(exchange)
    if body is None:
        return None
    return StoredCompletion(
        owner=exchange.owner,
        id=body["id"],
        created_at=exchange.created_at,
        model=body.get("model"),
        attributes=(exchange.storing or {}).get("metadata") or {},
        messages=list(exchange.messages or []),
        body=body,
    )


def completion_not_found(completion_id: str, param: str = "completion_id") -> NotFound:
    """Return the error for a completion that its owner does not have."""
    return NotFound(f"Chat completion with id '{completion_id[:100]}' not found.", param=param)


def _page_statement(owner: str, query: CompletionFilter, last: StoredCompletion | None) -> Select[*tuple[Any, ...]]:
    """Return the query for a page; ``last`` is the completion ``after``, where it is pending.

    Each row says whether PostgreSQL has that completion (``known``); there is at least one row.
    """
    selected = select(*_COLUMNS).where(StoredCompletion.owner == owner)
    known: ColumnElement[bool] = literal(value=True)
    if query.get("model") is not None:
        selected = selected.where(StoredCompletion.model == query["model"])
    if query.get("metadata"):
        selected = selected.where(StoredCompletion.attributes.contains(query["metadata"]))
    if last is not None:
        selected = selected.where(_is_beyond(tuple_(last.created_at, last.id), query))
    elif query.get("after") is not None:
        after = aliased(StoredCompletion)
        is_after = (after.owner == owner, after.id == query["after"])
        position = [select(column).where(*is_after).scalar_subquery() for column in (after.created_at, after.id)]
        selected = selected.where(_is_beyond(tuple_(*position), query))
        known = exists().where(*is_after)
    order = _order(StoredCompletion.created_at, StoredCompletion.id, query)
    page = selected.order_by(*order).limit(query["limit"] + 1).lateral("page")
    always = select(known.label("known")).subquery("always")
    columns = select(always.c.known, *page.c).select_from(always.outerjoin(page, true()))
    return columns.order_by(*_order(page.c.created_at, page.c.id, query))


def _is_beyond(position: ColumnElement[Any], query: CompletionFilter) -> ColumnElement[bool]:
    own = tuple_(StoredCompletion.created_at, StoredCompletion.id)
    return position < own if query["order"] == "asc" else position > own


def _order(created_at: Any, completion_id: Any, query: CompletionFilter) -> list[Any]:
    columns = [created_at, completion_id]
    return columns if query["order"] == "asc" else [column.desc() for column in columns]


def _page(
    query: CompletionFilter,
    pending: dict[str, StoredCompletion],
    last: StoredCompletion | None,
    rows: Sequence[Row[Any]] | None,
) -> tuple[list[StoredCompletion], bool]:
    """Return the page of stored and pending completions.

    ``rows`` is None without PostgreSQL. Then nobody knows whether more follow.
    """
    after = query.get("after")
    if after is not None and last is None:
        if rows is None:
            raise Unavailable("The database does not answer.", code="database_unavailable")
        if "\0" in after or not rows[0].known:
            raise completion_not_found(after, "after")
        # What is pending came after everything that PostgreSQL has.
        pending = pending if query["order"] == "asc" else {}
    stored = [StoredCompletion(**_without(row._mapping, "known")) for row in rows or () if row.id is not None]
    found = {each.id: each for each in stored} | {name: each for name, each in pending.items() if _matches(each, query)}
    ordered = sorted(found.values(), key=_position, reverse=query["order"] == "desc")
    if last is not None:
        ascending = query["order"] == "asc"
        ordered = [each for each in ordered if (_position(each) > _position(last)) == ascending and each.id != last.id]
    return ordered[: query["limit"]], len(ordered) > query["limit"] or rows is None


def _without(values: RowMapping, name: str) -> dict[str, Any]:
    return {str(each): value for each, value in values.items() if each != name}


def _position(completion: StoredCompletion) -> tuple[datetime, str]:
    return completion.created_at, completion.id


def _matches(completion: StoredCompletion, query: CompletionFilter) -> bool:
    wanted = query.get("metadata") or {}
    same_model = query.get("model") is None or completion.model == query["model"]
    return same_model and wanted.items() <= completion.attributes.items()


def change_completion(session: Session, owner: str, completion_id: str, metadata: dict[str, str]) -> StoredCompletion:
    """Replace the metadata of a stored completion. Raises NotFound."""
    completion = _find(session, owner, completion_id)
    completion.attributes = metadata
    session.commit()
    return completion


def delete_completion(session: Session, owner: str, completion_id: str) -> None:
    """Delete a stored completion; its conversation stays. Raises NotFound."""
    _find(session, owner, completion_id)
    session.execute(
        delete(StoredCompletion).where(StoredCompletion.owner == owner, StoredCompletion.id == completion_id)
    )
    session.commit()


def _find(session: Session, owner: str, completion_id: str) -> StoredCompletion:
    completion = session.get(StoredCompletion, (owner, completion_id)) if "\0" not in completion_id else None
    if completion is None:
        raise completion_not_found(completion_id)
    return completion


def completion_body(completion: StoredCompletion) -> Completion:
    """Return a completion as its client received it, with its metadata (OpenAI's ``CreateChatCompletionResponse``)."""
    return completion.body | {"metadata": completion.attributes}


def completions_body(completions: Sequence[StoredCompletion], has_more: bool) -> Page[Completion]:
    """Return a page of stored completions (OpenAI's ``ChatCompletionList``)."""
    return list_body([completion_body(completion) for completion in completions], has_more)


def messages_body(completion: StoredCompletion, query: PageFilter) -> Page[CompletionMessage]:
    """Return a page of the messages of a completion's request (OpenAI's ``ChatCompletionMessageList``).

    Raises NotFound for an unknown ``after``.
    """
    messages = [_message_body(completion, number, each) for number, each in enumerate(completion.messages)]
    return list_body(*page_of(messages, query, "Message with id '{}' not found in this completion."))


def _message_body(completion: StoredCompletion, number: int, message: ChatMessage) -> CompletionMessage:
    """Return a message with an id. Its parts stand in ``content_parts``; ``content`` is text or null."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "refusal": None,
        "name": None,
        **message,
        "id": f"{completion.id}-{number}",
        "content": content if parts is None else None,
        "content_parts": parts,
    }
