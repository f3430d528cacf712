"""The defaults that need no installation: PostgreSQL, an engine and a small model."""
