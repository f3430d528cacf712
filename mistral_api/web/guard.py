"""The guard of every route: doors, caller and scope are checked before any view runs, also where no route fits."""

from __future__ import annotations

from flask import Flask, g, request

from mistral_api.security.access import require_scope
from mistral_api.security.gate import needs_no_key
from mistral_api.security.request_head import head_from_environ
from mistral_api.web.finished_request import open_request
from mistral_api.web.operations import OPERATIONS
from mistral_api.web.rate_limits import admit_request
from mistral_api.web.request import caller, services


def _admit() -> None:
    head = head_from_environ(request.environ)
    g.caller = open_request().caller = services().gate.admit(head)
    if needs_no_key(head):
        return
    admit_request(services().rate_limits, g.caller)
    operation = OPERATIONS.get(request.endpoint or "")
    # A request for the options of a route does nothing, and a browser sends no key with it.
    if operation is not None and operation.scope is not None and request.method != "OPTIONS":
        require_scope(caller(), operation.scope)


def guard_requests(app: Flask) -> None:
    """Have every request of the application pass the gate. Views can call :func:`~mistral_api.web.request.caller`."""
    app.before_request(_admit)
