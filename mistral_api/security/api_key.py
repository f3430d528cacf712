"""API keys: what each allows, and whose it is. The secret itself is never kept, only its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

# Generate; read and change conversations, responses and figures of one's own; change the model server and the keys;
# send raw grammars; read the metrics.
INFERENCE: Final = "inference"
HISTORY: Final = "history"
ADMIN: Final = "admin"
GRAMMAR: Final = "grammar"
METRICS: Final = "metrics"
SCOPES = (INFERENCE, HISTORY, ADMIN, GRAMMAR, METRICS)
ALL_SCOPES = frozenset(SCOPES)
DEFAULT_SCOPES = frozenset((INFERENCE, HISTORY))


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The most that a key may use. None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in force. ``prefix`` is the visible beginning of its secret; ``expires_at`` is a Unix time in seconds."""

    id: UUID
    name: str
    owner: str
    prefix: str
    scopes: frozenset[str] = DEFAULT_SCOPES
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: float | None = None
