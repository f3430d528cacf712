"""Our errors as Anthropic's: ``{"type": "error", "error": {"type", "message"}}``.

Its clients choose the exception by the HTTP status, and tell by ``error.type`` what happened to a stream. The four keys
of OpenAI's error object stay, with Anthropic's word as the ``type``.
"""

from __future__ import annotations

from typing import Any

_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# A stream's status is 200 whatever happens later: there the code has to tell.
_BY_CODE = {
    "model_loading": "overloaded_error",
    "model_unavailable": "overloaded_error",
    "overloaded": "overloaded_error",
    "model_timeout": "timeout_error",
    "rate_limit_exceeded": "rate_limit_error",
}


def anthropic_error(body: dict[str, Any], status: int | None = None) -> dict[str, Any]:
    """The error body for one of ours; ``status`` is None in a stream."""
    error = body["error"]
    kind = _BY_STATUS.get(status or 0) or _BY_CODE.get(error.get("code") or "")
    if kind is None:
        kind = "api_error" if error.get("type") == "server_error" else "invalid_request_error"
    return {"type": "error", "error": error | {"type": kind}}
