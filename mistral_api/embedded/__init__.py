"""The defaults that need no installation: a PostgreSQL and an engine."""
