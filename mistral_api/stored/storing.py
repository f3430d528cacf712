"""Writing stored objects down, in the transaction that records the exchanges they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, text

from mistral_api.exchange import Exchange
from mistral_api.tables.base import Base
from mistral_api.tables.recordset import column_names, recordset, written
from mistral_api.tables.stored import StoredCompletion

# What ``Exchange.storing["object"]`` says.
COMPLETION = "chat.completion"


def _insert(table: type[Base], columns: Sequence[str]) -> TextClause:
    """Rows that know their conversation by its owner and session id; what is there already stays."""
    given = ", ".join(f"given.{name}" for name in columns)
    return text(
        f"INSERT INTO {table.__tablename__} (conversation_id, {', '.join(columns)}) SELECT c.id, {given} "
        f"FROM {recordset(table, columns, more=['session_id text'])} "
        "JOIN conversations AS c ON c.owner = given.owner AND c.session_id = given.session_id ON CONFLICT DO NOTHING"
    )


_COMPLETION_COLUMNS = [name for name in column_names(StoredCompletion) if name != "conversation_id"]
_INSERT_COMPLETIONS = _insert(StoredCompletion, _COMPLETION_COLUMNS)


def store_objects(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Keep what exchanges are to be kept as; their conversations are there. Raises sqlalchemy.exc.SQLAlchemyError."""
    completions = [_completion_row(exchange) for exchange in exchanges if _is_completion(exchange)]
    if completions:
        connection.execute(_INSERT_COMPLETIONS, {"rows": written(completions)})


def _is_completion(exchange: Exchange) -> bool:
    return exchange.stored is not None and exchange.stored.get("object") == COMPLETION


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
