"""The shapes of data that crosses the network or is stored, as types."""

from __future__ import annotations

from typing import Any

ChatMessage = dict[str, Any]
Item = dict[str, Any]
Chunk = dict[str, Any]
