"""The shapes of data that crosses the network or is stored, as types.

``JsonObject`` is for JSON that is truly free: metadata, arguments of tools, JSON schemas, fields that are passed on.
"""

from __future__ import annotations

from typing import Any

ChatMessage = dict[str, Any]
Item = dict[str, Any]
Chunk = dict[str, Any]
JsonObject = dict[str, Any]
ChatPayload = dict[str, Any]
