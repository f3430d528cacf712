"""A conversation as PostgreSQL has it, read in one statement: its columns, a part of a branch, and what turns need that
are laid over it.

A database may be far away, so all of it comes as JSON in one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Text, TextClause, column, text

from mistral_api.conversations.message_alignment import SentMessages
from mistral_api.conversations.message_matching import NO_DIGEST
from mistral_api.conversations.message_tree import stored_digest
from mistral_api.conversations.message_tree_store import nodes_query
from mistral_api.conversations.stored_message import MESSAGE_COLUMNS, MessageRecord
from mistral_api.database.tables.base import rows_as_json
from mistral_api.database.tables.conversations import Conversation
from mistral_api.recording.exchange import Exchange

# The attributes of a conversation that are read.
CONVERSATION_NAMES = (
    "id", "owner", "session_id", "title", "attributes", "head_id", "message_count", "created_at", "updated_at",
)  # fmt: skip
_OF_MESSAGE = ", ".join(f"m.{name}" for name in MESSAGE_COLUMNS)

# The conversations to which an owner's session ids lead (session_aliases), and all session ids that lead there.
_CONVERSATIONS = (
    "c AS MATERIALIZED (SELECT named.session_id AS named, v.*, v.metadata AS attributes,"
    " ARRAY(SELECT v.session_id UNION ALL"
    "  SELECT s.session_id FROM session_aliases AS s WHERE s.conversation_id = v.id) AS session_ids"
    " FROM unnest(CAST(:sessions AS text[])) AS named(session_id)"
    " JOIN conversations AS v ON v.id = coalesce("
    "  (SELECT s.conversation_id FROM session_aliases AS s"
    "   WHERE s.owner = :owner AND s.session_id = named.session_id),"
    "  (SELECT o.id FROM conversations AS o WHERE o.owner = :owner AND o.session_id = named.session_id)))"
)
_DESCRIBED = f"SELECT named, session_ids, {', '.join(CONVERSATION_NAMES)} FROM c"
# From a start up to the root, or to where the query ends.
_BRANCH = (
    "WITH RECURSIVE start AS ("
    " SELECT DISTINCT c.id AS conversation_id, CASE WHEN CAST(:before AS uuid) IS NULL"
    "  THEN coalesce(CAST(:start AS uuid), c.head_id)"
    "  ELSE (SELECT b.parent_id FROM messages AS b WHERE b.id = CAST(:before AS uuid)"
    "   AND b.conversation_id = c.id) END AS id FROM c"
    "), branch AS ("
    " SELECT m.id, m.parent_id, 0 AS level FROM start"
    "  JOIN messages AS m ON m.id = start.id AND m.conversation_id = start.conversation_id"
    "  WHERE m.id IS DISTINCT FROM CAST(:stop_before AS uuid)"
    " UNION ALL SELECT m.id, m.parent_id, branch.level + 1 FROM branch JOIN messages AS m ON m.id = branch.parent_id"
    "  WHERE branch.level < coalesce(CAST(:newest AS integer), 2147483647) - 1"
    "  AND m.id IS DISTINCT FROM CAST(:stop_before AS uuid)"
    "), taken AS (SELECT id, level FROM branch ORDER BY level DESC LIMIT CAST(:oldest AS integer)) "
    f"SELECT {_OF_MESSAGE} FROM taken JOIN messages AS m ON m.id = taken.id ORDER BY taken.level DESC"
)
_WANTED = (
    f"SELECT {_OF_MESSAGE} FROM messages AS m WHERE m.id = ANY(CAST(:wanted AS uuid[]))"
    " AND m.conversation_id IN (SELECT id FROM c)"
)
_NODES = nodes_query(
    "ARRAY(SELECT head_id FROM c WHERE head_id IS NOT NULL)",
    "ARRAY(SELECT id FROM c)",
    "(SELECT c.id AS conversation_id, sought.digest FROM json_to_recordset(CAST(:sought AS json))"
    " AS sought(named text, digest uuid) JOIN c USING (named)) AS new_rows",
)
# An exchange whose rows were committed between the reader's look into the journal and this statement.
_DELIVERED = (
    "SELECT u.request_id FROM json_to_recordset(CAST(:pending AS json)) AS p(id uuid, created_at timestamptz)"
    " JOIN api_usage AS u ON u.request_id = p.id AND u.created_at = p.created_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchQuery:
    """Which messages of a branch: all, the ``newest`` ones, or the ``oldest``.

    The branch ends with the message ``start``, or with the one above the message ``before``, else it is the current
    one. It begins below the message ``stop_before``, else at the root. The messages ``wanted`` are read besides, of
    whatever branch.
    """

    newest: int | None = None
    oldest: int | None = None
    start: UUID | None = None
    before: UUID | None = None
    stop_before: UUID | None = None
    wanted: tuple[UUID, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the statement."""
        return {
            "newest": self.newest,
            "oldest": self.oldest,
            "start": _text(self.start),
            "before": _text(self.before),
            "stop_before": _text(self.stop_before),
            "wanted": [str(each) for each in self.wanted],
        }


@dataclass(frozen=True, slots=True)
class StoredConversations:
    """What PostgreSQL has of some conversations of an owner.

    ``conversations`` are by the session id that was asked for, ``session_ids`` are all that lead there; ``branch``
    (oldest first) and ``wanted`` are what a :class:`BranchQuery` asked for; ``nodes`` are rows of
    ``message_tree_store.READ_NODES``; ``delivered`` are the ids of those pending exchanges whose rows are there
    already. Where ``is_whole`` is false PostgreSQL did not answer.
    """

    conversations: dict[str, Conversation] = field(default_factory=dict)
    session_ids: dict[str, list[str]] = field(default_factory=dict)
    branch: list[MessageRecord] = field(default_factory=list)
    wanted: dict[UUID, MessageRecord] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    delivered: frozenset[UUID] = frozenset()
    is_whole: bool = True

    @classmethod
    def from_row(cls, row: Any) -> StoredConversations:
        """Read the row of the statement."""
        named = {each.pop("named"): each for each in json_rows(getattr(row, "conversations", None))}
        session_ids = {name: each.pop("session_ids") for name, each in named.items()}
        return cls(
            {name: conversation_of(each) for name, each in named.items()},
            session_ids,
            [_message(each) for each in json_rows(getattr(row, "branch", None))],
            {each.id: each for each in map(_message, json_rows(getattr(row, "wanted", None)))},
            [_node(each) for each in json_rows(getattr(row, "nodes", None))],
            frozenset(UUID(each["request_id"]) for each in json_rows(getattr(row, "delivered", None))),
        )


def json_of(query: str) -> str:
    """Return SQL for the rows of a query as the text of a JSON array."""
    return f"CAST((SELECT json_agg(row_to_json(found)) FROM ({query}) AS found) AS text)"


def pending_columns() -> list[ColumnElement[Any]]:
    """Return columns for another statement: the conversations that are named, and what their pending turns need."""
    return [
        text(f"WITH {_CONVERSATIONS} SELECT {json_of(query)}").columns(column(name, Text)).scalar_subquery().label(name)
        for name, query in (("conversations", _DESCRIBED), ("nodes", _NODES), ("delivered", _DELIVERED))
    ]


@cache
def conversations_statement(*, with_branch: bool, with_pending: bool) -> TextClause:
    """Return the statement that reads conversations: with a part of a branch, and with what pending turns need.

    Its result is one row, whatever it finds.
    """
    parts = {
        "conversations": _DESCRIBED,
        "branch": _BRANCH if with_branch else None,
        "wanted": _WANTED if with_branch else None,
        "nodes": _NODES if with_pending else None,
        "delivered": _DELIVERED if with_pending else None,
    }
    return text(
        f"WITH {_CONVERSATIONS} SELECT "
        + ", ".join(f"{json_of(query) if query else 'NULL'} AS {name}" for name, query in parts.items())
    )


def conversation_parameters(owner: str, sessions: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that say which conversations. PostgreSQL has no NUL character, not even in a parameter."""
    return {"owner": owner, "sessions": [each for each in sessions if "\0" not in each]}


def pending_parameters(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """Return the parameters for exchanges that are laid over their conversations."""
    sent = [(exchange, SentMessages(exchange.messages or [])) for exchange in exchanges]
    return {
        "pending": rows_as_json([{"id": each.id, "created_at": each.created_at} for each in exchanges]),
        "sought": rows_as_json(
            [
                {"named": exchange.session_id, "digest": stored_digest(digest)}
                for exchange, messages in sent
                for digest in dict.fromkeys(messages.digests)
                if digest
            ]
        ),
        "continued": [str(exchange.continues) for exchange in exchanges if exchange.continues],
        "returned": [str(stored_digest(each.last_answer_digest)) for _, each in sent if each.has_answer],
        "no_digest": str(stored_digest(NO_DIGEST)),
    }


def json_rows(array: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = orjson.loads(array) if array else []
    return rows


def conversation_of(values: Mapping[str, Any]) -> Conversation:
    times = {name: datetime.fromisoformat(values[name]) for name in ("created_at", "updated_at")}
    return Conversation(**{**values, **times, "id": UUID(values["id"]), "head_id": _uuid(values["head_id"])})


def _message(values: dict[str, Any]) -> MessageRecord:
    for name in ("id", "conversation_id", "parent_id"):
        values[name] = _uuid(values[name])
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    return MessageRecord(**values)


def _node(values: Mapping[str, Any]) -> SimpleNamespace:
    ids = {name: _uuid(values[name]) for name in ("id", "conversation_id", "parent_id", "digest", "framing")}
    return SimpleNamespace(**{**values, **ids})


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _uuid(value: str | None) -> UUID | None:
    return None if value is None else UUID(value)
