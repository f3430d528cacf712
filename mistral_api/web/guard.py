"""The guard of every route: doors, caller and scope are checked before any view runs, also where no route fits."""

from __future__ import annotations

from flask import Flask, Request, g, request

from mistral_api.security.access import require_scope
from mistral_api.security.gate import needs_no_key
from mistral_api.security.request_head import head_from_environ
from mistral_api.web.finished_request import open_request_of
from mistral_api.web.operations import OPERATIONS
from mistral_api.web.rate_limits import admit_request
from mistral_api.web.request import services


def _admit() -> None:
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    head = head_from_environ(asked.environ)
    ours = services()
    caller = ours.gate.admit(head)
    g.caller = open_request_of(asked.environ).caller = caller
    if needs_no_key(head):
        return
    admit_request(ours.rate_limits, caller, asked)
    operation = OPERATIONS.get(asked.endpoint or "")
    # A request for the options of a route does nothing, and a browser sends no key with it.
    if operation is not None and operation.scope is not None and asked.method != "OPTIONS":
        require_scope(caller, operation.scope)


def guard_requests(app: Flask) -> None:
    """Have every request of the application pass the gate. Views can call :func:`~mistral_api.web.request.caller`."""
    app.before_request(_admit)
