"""Texts are found by any part of them, in any language.

The new columns of existing rows stay empty here, whatever their number: a running server fills them in the background
(``delivery/search_backfill.py``), and until then finds these rows by their words, in the former text index.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("messages", "conversations")
SEARCHED = 200_000
# Not every server has the extension, and not every role may create it. Search works without it, by reading all texts.
_TRIGRAM_INDEXES = """
DO $$
DECLARE operators text;
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    SELECT format('%I.gin_trgm_ops', nspname) INTO STRICT operators
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
    EXECUTE 'CREATE INDEX ix_messages_search_text ON messages USING gin (search_text ' || operators || ') '
        'WHERE search_text IS NOT NULL';
    EXECUTE 'CREATE INDEX ix_conversations_search_text ON conversations USING gin (search_text ' || operators || ') '
        'WHERE search_text IS NOT NULL';
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'search works without pg_trgm, but slowly: %', SQLERRM;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "search_backfill",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("done_from", sa.Uuid),
        sa.PrimaryKeyConstraint("table_name", name="pk_search_backfill"),
    )
    for table in TABLES:
        op.add_column(table, sa.Column("search_text", sa.Text(collation="C")))
        op.add_column(table, sa.Column("search_grams", postgresql.ARRAY(sa.Text(collation="C"))))
        op.create_index(
            f"ix_{table}_search_grams",
            table,
            ["search_grams"],
            postgresql_using="gin",
            postgresql_where=sa.text("search_grams IS NOT NULL"),
        )
        op.execute(f"INSERT INTO search_backfill (table_name) SELECT '{table}' WHERE EXISTS (SELECT FROM {table})")
    op.execute(_TRIGRAM_INDEXES)


def downgrade() -> None:
    op.execute("UPDATE conversations SET search = to_tsvector('simple', title) WHERE search IS NULL")
    op.execute(
        "UPDATE messages SET search = to_tsvector('simple', left(CASE jsonb_typeof(content) "
        "WHEN 'string' THEN content #>> '{}' "
        "WHEN 'array' THEN (SELECT string_agg(part ->> 'text', ' ') FROM jsonb_array_elements(content) AS part) "
        f"END, {SEARCHED})) WHERE search IS NULL"
    )
    for table in TABLES:
        op.execute(f"DROP INDEX IF EXISTS ix_{table}_search_text")
        op.drop_index(f"ix_{table}_search_grams", table)
        op.drop_column(table, "search_grams")
        op.drop_column(table, "search_text")
    op.drop_table("search_backfill")
