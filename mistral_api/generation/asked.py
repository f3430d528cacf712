"""A request for a generation as it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from mistral_api.inference.cancellation import UpstreamCall
from mistral_api.security.access import Caller


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks, the decoded body, and the client's line."""

    caller: Caller
    request_id: UUID
    client_request_id: str | None
    body: object
    call: UpstreamCall = field(default_factory=UpstreamCall)
