"""Session ids that lead to another conversation, and answers that were cut off, found by what stands above them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "session_aliases",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column(
            "conversation_id",
            sa.Uuid,
            sa.ForeignKey("conversations.id", ondelete="CASCADE"),
            nullable=False,
        ),
    )
    op.create_index("ix_session_aliases_conversation_id", "session_aliases", ["conversation_id"])
    op.create_index(
        "ix_messages_cut_answers",
        "messages",
        ["parent_id"],
        postgresql_where=sa.text("role = 'assistant' AND status = 'interrupted'"),
    )


def downgrade() -> None:
    # The older version finds nothing under these session ids. The messages stay where they are.
    op.drop_index("ix_messages_cut_answers", "messages")
    op.drop_table("session_aliases")
