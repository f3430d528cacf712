"""What the graphics cards did, summed up by hour and day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FIGURES = ("utilization_percent", "memory_used_bytes", "temperature_celsius", "power_milliwatts")


def upgrade() -> None:
    op.create_table(
        "gpu_series",
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("start", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("card_index", sa.SmallInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("memory_total_bytes", sa.BigInteger),
        *(column for figure in FIGURES for column in _sums(figure)),
        sa.PrimaryKeyConstraint("period", "card", "start", name="pk_gpu_series"),
    )


def _sums(figure: str) -> list[sa.Column[int]]:
    return [
        sa.Column(f"{figure}_samples", sa.BigInteger, nullable=False),
        sa.Column(f"{figure}_sum", sa.BigInteger, nullable=False),
        sa.Column(f"{figure}_peak", sa.BigInteger),
    ]


def downgrade() -> None:
    op.drop_table("gpu_series")
