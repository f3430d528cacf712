"""The line of each request in the log: who asked for what, how it ended, how long it took, and how many tokens."""

from __future__ import annotations

import logging

from mistral_api.observability.finished_request import FinishedRequest
from mistral_api.system.log_format import Fields, Value

log = logging.getLogger("mistral_api.access")

# What orchestrators, balancers and Prometheus ask for every few seconds is logged at DEBUG.
_POLLED = ("/health", "/metrics")


def log_request(finished: FinishedRequest) -> None:
    """Log one request. Observer of :class:`FinishedRequests`."""
    level = logging.DEBUG if (finished.route or "").startswith(_POLLED) else logging.INFO
    if log.isEnabledFor(level):
        # Without a search through the stack for who logs, which takes longer than the rest.
        fields = Fields("request", request_fields(finished))
        log.handle(log.makeRecord(log.name, level, __file__, 0, fields, (), None))


def request_fields(finished: FinishedRequest) -> dict[str, Value]:
    """Return the fields of the line, in their order. docs/operation.md has a table of them."""
    return {
        "request_id": finished.request_id,
        "method": finished.method,
        "path": finished.path,
        "status": finished.status,
        "duration_ms": finished.duration_ms,
        "ttft_ms": finished.ttft_ms,
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "model": finished.model,
        "session": finished.session,
        "client": finished.client,
        "key": finished.key_name,
        "address": finished.address,
        "error": finished.error_code,
        "background": finished.background or None,
    }
