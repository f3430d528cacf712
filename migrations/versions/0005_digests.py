"""Messages are recognised by what they mean, wherever in a conversation a sent list begins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Stored messages get their digests when their conversation is written to again: no row is rewritten here.
    op.drop_index("ix_messages_conversation_id_chain", "messages")
    op.drop_column("messages", "chain")
    op.add_column("messages", sa.Column("digest", sa.Uuid))
    op.add_column("messages", sa.Column("depth", sa.Integer))
    op.add_column("messages", sa.Column("framing", sa.Uuid))
    op.add_column("messages", sa.Column("sent", postgresql.JSONB))
    op.create_index("ix_messages_digest_conversation_id", "messages", ["digest", "conversation_id"])


def downgrade() -> None:
    op.drop_index("ix_messages_digest_conversation_id", "messages")
    for column in ("sent", "framing", "depth", "digest"):
        op.drop_column("messages", column)
    # The older version compared hashes of another kind. Without them it stores a history that is sent again once more.
    op.add_column("messages", sa.Column("chain", sa.Uuid))
    op.execute("UPDATE messages SET chain = gen_random_uuid()")
    op.alter_column("messages", "chain", nullable=False)
    op.create_index("ix_messages_conversation_id_chain", "messages", ["conversation_id", "chain"])
