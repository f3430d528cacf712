"""The defaults that need no installation: a PostgreSQL, an engine and a small model."""
