"""Messages are recognised with what came before them and found by their words; usage is summed up."""

from __future__ import annotations

import hashlib
from itertools import groupby
from operator import attrgetter
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)
BATCH = 1000
SEARCHED = 200_000


def upgrade() -> None:
    _extend_conversations()
    _extend_messages()
    op.drop_index("ix_api_usage_owner_created_at", "api_usage")
    _create_rollups()
    _create_series()
    _create_sessions()


def _extend_conversations() -> None:
    op.add_column("conversations", sa.Column("search", postgresql.TSVECTOR))
    op.execute("UPDATE conversations SET search = to_tsvector('simple', title)")
    op.create_index("ix_conversations_search", "conversations", ["search"], postgresql_using="gin")


def _extend_messages() -> None:
    op.add_column("messages", sa.Column("chain", sa.Uuid))
    op.add_column("messages", sa.Column("search", postgresql.TSVECTOR))
    if not op.get_context().as_sql:
        _chain_messages(op.get_bind())
    op.execute(
        "UPDATE messages SET search = to_tsvector('simple', left(CASE jsonb_typeof(content) "
        "WHEN 'string' THEN content #>> '{}' "
        "WHEN 'array' THEN (SELECT string_agg(part ->> 'text', ' ') FROM jsonb_array_elements(content) AS part) "
        f"END, {SEARCHED}))"
    )
    op.alter_column("messages", "chain", nullable=False)
    op.drop_column("messages", "digest")
    op.create_index("ix_messages_conversation_id_chain", "messages", ["conversation_id", "chain"])
    op.create_index("ix_messages_search", "messages", ["search"], postgresql_using="gin")


def _chain_messages(connection: sa.Connection) -> None:
    """A message's chain is the digest of its parent's chain and of its own digest; parents come first."""
    query = "SELECT id, conversation_id, parent_id, digest FROM messages ORDER BY conversation_id, sequence"
    found: dict[str, str] = {}
    with connection.execute(sa.text(query), execution_options={"yield_per": BATCH}) as rows:
        for _, messages in groupby(rows, attrgetter("conversation_id")):
            chains: dict[UUID | None, str] = {None: ""}
            for message in messages:
                joined = f"{chains.get(message.parent_id, '')}{message.digest}"
                chains[message.id] = hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()
                found[str(message.id)] = chains[message.id]
            if len(found) >= BATCH:
                _write_chains(connection, found)
                found = {}
    _write_chains(connection, found)


def _write_chains(connection: sa.Connection, found: dict[str, str]) -> None:
    statement = (
        "UPDATE messages SET chain = given.chain "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:chains AS uuid[])) AS given(id, chain) WHERE messages.id = given.id"
    )
    connection.execute(sa.text(statement), {"ids": list(found), "chains": list(found.values())})


def _create_rollups() -> None:
    counts = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_us")
    spreads = ("first_token_us", "first_token_requests", "rate_thousandths", "rate_requests")
    op.create_table(
        "usage_rollups",
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("start", TIMESTAMPTZ, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counts + spreads),
        sa.PrimaryKeyConstraint("period", "start", "endpoint", "model", "owner", "status", name="pk_usage_rollups"),
    )


def _create_series() -> None:
    counts = ("requests", "failed", "prompt_tokens", "completion_tokens", "sessions")
    histograms = ("latency", "first_token", "rate")
    op.create_table(
        "usage_series",
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("start", TIMESTAMPTZ, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counts),
        *(sa.Column(name, postgresql.ARRAY(sa.Integer), nullable=False) for name in histograms),
        sa.Column("p95_latency_bucket", sa.SmallInteger),
        sa.PrimaryKeyConstraint("period", "owner", "start", name="pk_usage_series"),
    )


def _create_sessions() -> None:
    op.create_table(
        "usage_sessions",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("last_hour", TIMESTAMPTZ, nullable=False),
        sa.PrimaryKeyConstraint("owner", "session_id", name="pk_usage_sessions"),
    )
    op.create_index("ix_usage_sessions_last_hour", "usage_sessions", ["last_hour"])
    op.create_table(
        "usage_pruned",
        sa.Column("before", TIMESTAMPTZ, nullable=False),
        sa.PrimaryKeyConstraint("before", name="pk_usage_pruned"),
    )


def downgrade() -> None:
    for table in ("usage_pruned", "usage_sessions", "usage_series", "usage_rollups"):
        op.drop_table(table)
    op.create_index("ix_api_usage_owner_created_at", "api_usage", ["owner", "created_at"])
    op.add_column("messages", sa.Column("digest", sa.Text, nullable=False, server_default=""))
    op.alter_column("messages", "digest", server_default=None)
    for table in ("messages", "conversations"):
        op.drop_index(f"ix_{table}_search", table)
        op.drop_column(table, "search")
    op.drop_index("ix_messages_conversation_id_chain", "messages")
    op.drop_column("messages", "chain")
