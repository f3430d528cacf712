"""Chat completions and responses that can be retrieved by their ids."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "stored_completions",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("metadata", postgresql.JSONB, nullable=False),
        sa.Column("messages", postgresql.JSONB, nullable=False),
        sa.Column("body", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name="pk_stored_completions"),
        _of_conversation("stored_completions"),
    )
    op.create_index("ix_stored_completions_owner_created_at_id", "stored_completions", ["owner", "created_at", "id"])
    op.create_index("ix_stored_completions_conversation_id", "stored_completions", ["conversation_id"])
    op.create_table(
        "responses",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("previous_response_id", sa.Text),
        sa.Column("input_ids", postgresql.ARRAY(sa.Uuid), nullable=False),
        sa.Column("answer_id", sa.Uuid),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, nullable=False),
        sa.Column("body", postgresql.JSONB),
        sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        _of_conversation("responses"),
    )
    op.create_index("ix_responses_conversation_id", "responses", ["conversation_id"])


def _of_conversation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["conversation_id"], ["conversations.id"], name=f"fk_{table}_conversation_id_conversations", ondelete="CASCADE"
    )


def downgrade() -> None:
    op.drop_table("responses")
    op.drop_table("stored_completions")
