"""What keeps the embedded PostgreSQL from running."""

from __future__ import annotations


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL cannot be had; the message is one sentence for the operator."""
