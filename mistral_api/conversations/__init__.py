"""Conversations: trees of messages in PostgreSQL, and how clients continue, read, search, change and export them."""
