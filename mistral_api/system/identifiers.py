"""Identifiers. Most sort by the time at which they were made (UUIDv7, RFC 9562 section 5.7)."""

from __future__ import annotations

import hashlib
import os
import secrets
import string
import time
from uuid import UUID

# Begins the ids of sessions that no client chose.
GENERATED_SESSION_PREFIX = "sess_"
_ALPHANUMERIC = string.ascii_letters + string.digits


def new_id() -> UUID:
    """Return a UUIDv7: 48 bits of Unix milliseconds, then version, variant and 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big") >> 6
    high, low = random_bits >> 62, random_bits & ((1 << 62) - 1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


def derived_id(base: UUID, number: int) -> UUID:
    """Return the UUIDv7 that belongs to a number below another one: always the same, of the same millisecond."""
    digest = hashlib.blake2b(base.bytes + number.to_bytes(8, "big", signed=True), digest_size=16).digest()
    random_bits = int.from_bytes(digest, "big") & ~(0xF << 76) & ((1 << 80) - 1) & ~(0b11 << 62)
    return UUID(int=base.int >> 80 << 80 | 0x7 << 76 | 0b10 << 62 | random_bits)


def new_session_id(request_id: UUID | None = None) -> str:
    """Return the id of a session that the client did not name.

    One that is made of the id of the request that begins it shows later that nothing came before that request.
    """
    return f"{GENERATED_SESSION_PREFIX}{(request_id or new_id()).hex}"


def new_conversation_id() -> str:
    """Return the id of a session that is made before its first message, in OpenAI's form."""
    return f"conv_{new_id().hex}"


def new_tool_call_id() -> str:
    """Return the id of a tool call: nine letters and digits, as Mistral's chat templates demand."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
