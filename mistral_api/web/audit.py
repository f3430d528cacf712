"""Requests for the audit log, as Flask knows them."""

from __future__ import annotations

from flask import g, request

from mistral_api.api_keys.key_store import key_subject
from mistral_api.database.tables.keys import StoredKey
from mistral_api.errors import ApiError
from mistral_api.event_loop import waiting
from mistral_api.security.access import Caller
from mistral_api.security.audit import Source, event_name
from mistral_api.security.request_head import head_from_environ
from mistral_api.web.request import services, shown_request_id, shown_route


def note_refusal(error: ApiError) -> None:
    """Write a line into the audit log where an error is an event of security."""
    if error.status < 500 and event_name(error) is not None:
        audit_log, source = services().audit_log, _source()
        waiting.aside(lambda: audit_log.note(error, source))


def note_key_change(event: str, key: StoredKey) -> None:
    """Write a line into the audit log for a key that the current request has made or changed."""
    services().audit_log.record(event, key_subject(key), _source())


def _source() -> Source:
    caller: Caller | None = g.get("caller")
    key = None if caller is None or caller.key is None else caller.key.prefix
    return {
        "address": services().gate.address(head_from_environ(request.environ)),
        "key": key,
        "method": request.method,
        "route": shown_route(),
        "request_id": shown_request_id(),
    }
