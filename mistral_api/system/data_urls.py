"""Data URLs: bytes inside a URL (RFC 2397)."""

from __future__ import annotations


def data_url(media_type: str, data: str) -> str:
    """Return base64 as a data URL."""
    return f"data:{media_type};base64,{data}"
