"""Refused requests for the audit log, as Flask knows them."""

from __future__ import annotations

from flask import g, request

from mistral_api.errors import ApiError
from mistral_api.security.access import Caller
from mistral_api.security.audit import Source, shown_path
from mistral_api.security.request_head import head_from_environ
from mistral_api.web.request import services, shown_request_id


def note_refusal(error: ApiError) -> None:
    """Write a line into the audit log where an error is an event of security."""
    if error.status < 500:
        services().audit_log.note(error, _source())


def _source() -> Source:
    caller: Caller | None = g.get("caller")
    key = None if caller is None or caller.key is None else caller.key.prefix
    rule = request.url_rule
    return {
        "address": services().gate.address(head_from_environ(request.environ)),
        "key": key,
        "method": request.method,
        "route": shown_path(request.path) if rule is None else rule.rule,
        "request_id": shown_request_id(),
    }
