"""The rows of stored completions and responses, written in the transaction that inserts their exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from mistral_api.database.tables.base import Base, column_names, recordset, rows_as_json
from mistral_api.database.tables.stored import StoredCompletion, StoredResponse
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import Completion
from mistral_api.payload_types.responses import Response
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.stored_object import stored_completion, stored_response


class CompletionRow(TypedDict):
    """A row of ``stored_completions``, with the session id in place of its conversation."""

    owner: str
    session_id: str | None
    id: str | None
    created_at: datetime
    model: str | None
    metadata: Mapping[str, str]
    messages: Sequence[ChatMessage] | None
    body: Completion


class ResponseRow(TypedDict):
    """A row of ``responses``, with the session id in place of its conversation."""

    id: str
    owner: str
    session_id: str | None
    previous_response_id: str | None
    input_ids: Sequence[UUID]
    answer_id: UUID | None
    status: str
    created_at: datetime
    body: Response


def _insert(table: type[Base]) -> TextClause:
    """Return the statement that inserts rows whose conversation is known by its owner and session id.

    A row that is there already stays.
    """
    columns = [name for name in column_names(table) if name not in ("conversation_id", "deleted")]
    values = ", ".join(f"new_rows.{name}" for name in columns)
    return text(
        f"INSERT INTO {table.__tablename__} (conversation_id, {', '.join(columns)}) SELECT c.id, {values} "
        f"FROM {recordset(table, columns, more=['session_id text'])} "
        "JOIN conversations AS c ON c.owner = new_rows.owner AND c.session_id = new_rows.session_id "
        "ON CONFLICT DO NOTHING"
    )


_INSERT_COMPLETIONS = _insert(StoredCompletion)
_INSERT_RESPONSES = _insert(StoredResponse)


def store_objects(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Store the objects of exchanges whose conversations exist. Raises sqlalchemy.exc.SQLAlchemyError."""
    completions = [_completion_row(exchange, body) for exchange in exchanges if (body := stored_completion(exchange))]
    if completions:
        connection.execute(_INSERT_COMPLETIONS, {"rows": rows_as_json(completions)})
    responses = [_response_row(exchange, response) for exchange in exchanges if (response := stored_response(exchange))]
    if responses:
        connection.execute(_INSERT_RESPONSES, {"rows": rows_as_json(responses)})


def _completion_row(exchange: Exchange, body: Completion) -> CompletionRow:
    storing = exchange.storing or {}
    return {
        "owner": exchange.owner,
        "session_id": exchange.session_id,
        "id": body.get("id"),
        "created_at": exchange.created_at,
        "model": body.get("model"),
        "metadata": storing.get("metadata") or {},
        "messages": exchange.messages,
        "body": body,
    }


def _response_row(exchange: Exchange, body: Response) -> ResponseRow:
    return {
        "id": body["id"],
        "owner": exchange.owner,
        "session_id": exchange.session_id,
        "previous_response_id": body.get("previous_response_id"),
        "input_ids": exchange.message_ids or [],
        "answer_id": exchange.answer_id if exchange.answers else None,
        "status": body["status"],
        "created_at": exchange.created_at,
        "body": body,
    }
