"""One request and what came of it, as the journal keeps it and the writer delivers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request to a generation endpoint. Times in milliseconds, tokens counted by the model server.

    ``messages`` are those the client sent and ``answers`` those the model gave, in OpenAI's form;
    both are empty where no text is to be kept. ``answer_status`` is ``complete``, ``interrupted``
    or ``failed``.
    """

    id: UUID
    created_at: datetime
    endpoint: str
    owner: str
    client_address: str | None = None
    client_request_id: str | None = None
    session_id: str | None = None
    model: str | None = None
    stream: bool = False
    status: int = 200
    error_code: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float = 0.0
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None
    finish_reason: str | None = None
    messages: list[dict[str, Any]] | None = None
    answers: list[dict[str, Any]] | None = None
    answer_status: str = "complete"

    @property
    def shown_request_id(self) -> str:
        """The id that the client saw in ``X-Request-Id``."""
        return self.client_request_id or str(self.id)

    def to_bytes(self) -> bytes:
        """The journal's form: JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Exchange:
        """Read the journal's form. Raises ValueError, KeyError or TypeError for anything else."""
        fields = orjson.loads(payload)
        if rb"\u0000" in payload:
            fields = _without_nul(fields)
        fields["id"] = UUID(fields["id"])
        fields["created_at"] = datetime.fromisoformat(fields["created_at"])
        return cls(**fields)


def _without_nul(value: Any) -> Any:
    """PostgreSQL's text and jsonb hold no NUL character: it becomes U+FFFD."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value
