"""The tools of a request that are left out, since only OpenAI can run them: its client and the log are told."""

from __future__ import annotations

import logging

from mistral_api.payload_types.responses import ResponsePayload
from mistral_api.wire.response_tools import is_hosted

log = logging.getLogger(__name__)

# What the log has been told: the types are few, so these are few too.
_told: set[tuple[str, ...]] = set()


def ignored_tools(request: ResponsePayload) -> tuple[str, ...]:
    """Return the types of the tools that a valid request is answered without, each once.

    The log is told of each combination once.
    """
    types = tuple(dict.fromkeys(tool["type"] for tool in request.get("tools", []) if is_hosted(tool)))
    if types and types not in _told:
        _told.add(types)
        log.info("tools that only OpenAI can run are left out of requests that have them: %s", ", ".join(types))
    return types
