"""What of a message can be searched, and how a search is put to PostgreSQL's text index."""

from __future__ import annotations

from typing import Any

# A text vector holds at most a megabyte of words (PostgreSQL's documentation, section 12.11), and a
# character takes up to four bytes.
SEARCHED_CHARACTERS = 200_000


def searchable_text(content: Any) -> str | None:
    """The text of a message, or None where it has none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:SEARCHED_CHARACTERS]
