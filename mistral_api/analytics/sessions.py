"""The hour of each session's last use, from which follows how many sessions were used since any moment.

A session counts once, in the period of its last use, so the counts of periods can be added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, text

from mistral_api.analytics.periods import start_of
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import UsageSession

# By hour and key: how many more or fewer sessions have their last use in that hour.
SessionChanges = Counter[tuple[datetime, str]]

_ROWS = recordset(UsageSession, column_names(UsageSession))
_MOVE = text(
    "WITH former AS (SELECT s.owner, s.session_id, s.last_hour FROM usage_sessions AS s "
    f"JOIN {_ROWS} USING (owner, session_id)), "
    "moved AS (INSERT INTO usage_sessions AS s (owner, session_id, last_hour) SELECT owner, session_id, last_hour "
    f"FROM {_ROWS} ON CONFLICT (owner, session_id) "
    "DO UPDATE SET last_hour = excluded.last_hour WHERE s.last_hour < excluded.last_hour "
    "RETURNING owner, session_id, last_hour) "
    "SELECT owner, moved.last_hour, former.last_hour AS former FROM moved LEFT JOIN former USING (owner, session_id)"
)
_RECOUNT = text(
    "INSERT INTO usage_sessions (owner, session_id, last_hour) "
    "SELECT owner, session_id, date_trunc('hour', max(created_at), 'UTC') FROM api_usage "
    "WHERE created_at >= :since AND session_id <> '' GROUP BY owner, session_id "
    "ON CONFLICT (owner, session_id) DO UPDATE SET last_hour = excluded.last_hour"
)
_COUNT = text(
    "SELECT last_hour, owner, count(*) AS number FROM usage_sessions "
    "WHERE last_hour >= :since GROUP BY last_hour, owner"
)


class SessionUse(Protocol):
    """A request that may belong to a session."""

    created_at: datetime
    owner: str
    session_id: str | None


def record_session_use(connection: Connection, requests: Iterable[SessionUse]) -> SessionChanges:
    """Store the last use of the sessions of some requests. Return what that changes."""
    last_hours: dict[tuple[str, str], datetime] = {}
    for request in requests:
        if request.session_id:
            session, hour = (request.owner, request.session_id), start_of("hour", request.created_at)
            last_hours[session] = max(hour, last_hours.get(session, hour))
    changes: SessionChanges = Counter()
    if not last_hours:
        return changes
    rows = [
        {"owner": owner, "session_id": session_id, "last_hour": hour}
        for (owner, session_id), hour in sorted(last_hours.items())
    ]
    for row in connection.execute(_MOVE, {"rows": rows_as_json(rows)}):
        changes[row.last_hour, row.owner] += 1
        if row.former is not None:
            changes[row.former, row.owner] -= 1
    return changes


def recount_sessions(connection: Connection, since: datetime) -> SessionChanges:
    """Store the sessions used since a moment from the usage rows, and return their counts.

    The rows of ``usage_sessions`` since that moment must have been deleted.
    """
    connection.execute(_RECOUNT, {"since": since})
    return Counter({(row.last_hour, row.owner): row.number for row in connection.execute(_COUNT, {"since": since})})
