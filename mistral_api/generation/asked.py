"""A request for a generation as it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from mistral_api.inference.cancellation import Call
from mistral_api.security.access import Caller


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, the decoded body, and the client's line."""

    caller: Caller
    request_id: UUID
    client_request_id: str | None
    body: object
    call: Call = field(default_factory=Call)
