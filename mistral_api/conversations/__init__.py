"""Conversations: sessions and their message trees, items, history, search and export."""
