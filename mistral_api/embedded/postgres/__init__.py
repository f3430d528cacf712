"""The embedded PostgreSQL: started by the first process that needs it, shared by all, stopped by its owner."""

from mistral_api.embedded.postgres.files import find_program, has_embedded_postgres, package_version
from mistral_api.embedded.postgres.server import (
    EmbeddedPostgres,
    embedded_postgres_url,
    running_embedded_postgres,
    start_embedded_postgres,
)
from mistral_api.embedded.postgres.watcher import EmbeddedHealth

__all__ = [
    "EmbeddedHealth",
    "EmbeddedPostgres",
    "embedded_postgres_url",
    "find_program",
    "has_embedded_postgres",
    "package_version",
    "running_embedded_postgres",
    "start_embedded_postgres",
]
