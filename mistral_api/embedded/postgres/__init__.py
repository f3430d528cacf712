"""The embedded PostgreSQL: started by whoever needs it first, shared, stopped by its owner."""

from mistral_api.embedded.postgres.server import EmbeddedPostgres, start_embedded_postgres

__all__ = ["EmbeddedPostgres", "start_embedded_postgres"]
