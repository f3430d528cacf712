"""The rows of one owner become another's: what was recorded before there were keys gets the owner of a key.

It is one transaction. Writers wait meanwhile, readers do not. What is still in the journal, or is being generated, is
delivered to its former owner afterwards, and adopted by another run. Saved caches of the former owner's conversations
are not found any more: their next turn reads its prompt anew. API processes recognise the adopted conversations by
their texts once they are restarted; by their session ids they are found at once.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text

from mistral_api.analytics.rollups import change_owner
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables.base import rows_as_json
from mistral_api.system.identifiers import new_session_id

LOCK_SECONDS = 15
# In the order in which the writer uses them.
_RENAMED_TABLES = ("api_usage", "conversations", "session_aliases", "usage_sessions")
_SIMPLE_TABLES = (*_RENAMED_TABLES, "stored_completions", "responses")
_SUMMED_TABLES = ("usage_rollups", "usage_series")
# A session counts once in the sums, so that a session id which both owners have used must stay two.
_SESSIONS = ("conversations", "session_aliases", "usage_sessions")
_ALL_SESSIONS = " UNION ".join(f"SELECT session_id FROM {table} WHERE owner = :{{0}}" for table in _SESSIONS)
_IN_BOTH = text(f"({_ALL_SESSIONS.format('former')}) INTERSECT ({_ALL_SESSIONS.format('owner')}) ORDER BY session_id")


def adopt_rows(engine: Engine, former: str, owner: str) -> dict[str, int]:
    """Give everything of a former owner to another one. Return the number of rows of each table that had any.

    A session id that both have used gets a new one where it was the former owner's. Raises SQLAlchemyError, also where
    a writer does not let go of the tables within LOCK_SECONDS.
    """
    with engine.begin() as connection, without_deadline(connection):
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        tables = ", ".join((*_SIMPLE_TABLES, *_SUMMED_TABLES))
        connection.execute(text(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"))
        _rename_sessions(connection, former, owner)
        counts = {table: _change_owner(connection, table, former, owner) for table in _SIMPLE_TABLES}
        counts["sums of usage"] = change_owner(connection, former, owner)
    return {table: count for table, count in counts.items() if count}


def _rename_sessions(connection: Connection, former: str, owner: str) -> None:
    """Give another id to each session of the former owner whose id the new one has used too."""
    shared = connection.scalars(_IN_BOTH, {"former": former, "owner": owner}).all()
    if not shared:
        return
    rows = rows_as_json([{"old": session_id, "new": new_session_id()} for session_id in shared])
    for table in _RENAMED_TABLES:
        connection.execute(
            text(
                f"UPDATE {table} AS t SET session_id = r.new "
                "FROM json_to_recordset(CAST(:rows AS json)) AS r(old text, new text) "
                "WHERE t.owner = :former AND t.session_id = r.old"
            ),
            {"rows": rows, "former": former},
        )


def _change_owner(connection: Connection, table: str, former: str, owner: str) -> int:
    change = text(f"UPDATE {table} SET owner = :owner WHERE owner = :former")
    return connection.execute(change, {"owner": owner, "former": former}).rowcount
