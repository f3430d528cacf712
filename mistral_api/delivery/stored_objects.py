"""Writing stored objects down, in the transaction that records the exchanges they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, text

from mistral_api.database.tables.base import Base, column_names, recordset, rows_as_json
from mistral_api.database.tables.stored import StoredCompletion, StoredResponse
from mistral_api.recording.exchange import COMPLETION_OBJECT, INTERRUPTED, RESPONSE_OBJECT, Exchange

_KILLED = {
    "status": "failed",
    "error": {"code": "server_error", "message": "The server ended before the response was complete."},
}


def _insert(table: type[Base], columns: Sequence[str]) -> TextClause:
    """Rows that know their conversation by its owner and session id; what is there already stays."""
    given = ", ".join(f"new_rows.{name}" for name in columns)
    return text(
        f"INSERT INTO {table.__tablename__} (conversation_id, {', '.join(columns)}) SELECT c.id, {given} "
        f"FROM {recordset(table, columns, more=['session_id text'])} "
        "JOIN conversations AS c ON c.owner = new_rows.owner AND c.session_id = new_rows.session_id ON CONFLICT DO NOTHING"
    )


def _columns(table: type[Base]) -> list[str]:
    return [name for name in column_names(table) if name not in ("conversation_id", "deleted")]


_INSERT_COMPLETIONS = _insert(StoredCompletion, _columns(StoredCompletion))
_INSERT_RESPONSES = _insert(StoredResponse, _columns(StoredResponse))


def store_objects(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Keep what exchanges are to be kept as; their conversations are there. Raises sqlalchemy.exc.SQLAlchemyError."""
    completions = [_completion_row(exchange) for exchange in exchanges if _is_completion(exchange)]
    if completions:
        connection.execute(_INSERT_COMPLETIONS, {"rows": rows_as_json(completions)})
    responses = [_response_row(exchange, body) for exchange in exchanges if (body := _response_of(exchange))]
    if responses:
        connection.execute(_INSERT_RESPONSES, {"rows": rows_as_json(responses)})


def _is_completion(exchange: Exchange) -> bool:
    return exchange.stored is not None and exchange.stored.get("object") == COMPLETION_OBJECT


def _completion_row(exchange: Exchange) -> dict[str, Any]:
    body = exchange.stored or {}
    return {
        "owner": exchange.owner,
        "session_id": exchange.session_id,
        "id": body.get("id"),
        "created_at": exchange.created_at,
        "model": body.get("model"),
        "metadata": (exchange.storing or {}).get("metadata") or {},
        "messages": exchange.messages,
        "body": (exchange.storing or {}).get("request", {}) | body,
    }


def _response_of(exchange: Exchange) -> dict[str, Any] | None:
    """The response an exchange is kept as; of one whose process was killed, what it was opened with."""
    storing = exchange.storing or {}
    if storing.get("object") != RESPONSE_OBJECT:
        return None
    killed: dict[str, Any] | None = storing["body"] | _KILLED if exchange.error_code == INTERRUPTED else None
    return exchange.stored or killed


def _response_row(exchange: Exchange, body: dict[str, Any]) -> dict[str, Any]:
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
