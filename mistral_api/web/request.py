"""What a view knows of its request: services, caller, request id; JSON by orjson.

The request id is taken from ``X-Request-Id`` or made. Every response carries it, and the log names it.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import orjson
from flask import Flask, Response, current_app, g, request
from flask.globals import request_ctx
from flask.json.provider import JSONProvider

from mistral_api.security.access import Caller
from mistral_api.security.api_key import SECRET_PATTERN
from mistral_api.security.audit import shown_path
from mistral_api.services import Services, services_of
from mistral_api.system.identifiers import new_id
from mistral_api.web.finished_request import open_request, open_request_of

# The id stands in logs: one that has the secret of a key in it is not taken over.
_ACCEPTABLE = re.compile(rf"(?!.*{SECRET_PATTERN})[!-~]{{1,128}}")


def services() -> Services:
    """Return the services of the application that handles the current request."""
    return services_of(current_app.extensions)


def caller() -> Caller:
    """Return the caller of the current request."""
    caller: Caller = g.caller
    return caller


def request_id() -> UUID:
    """Return our own id of the current request; its usage row has it."""
    own_id: UUID = g.request_id
    return own_id


def client_request_id() -> str | None:
    """Return the id that the client gave the current request, if it is acceptable."""
    client_id: str | None = g.client_request_id
    return client_id


def shown_request_id() -> str:
    """Return the id of the current request as its client sees it."""
    return client_request_id() or str(request_id())


def shown_route() -> str:
    """Return how logs name what was asked for: by the rule of the route, or the path where it has none.

    A path of ours has ids that clients choose.
    """
    rule = request.url_rule
    return shown_path(request.path) if rule is None else rule.rule


def _begin() -> None:
    context = request_ctx._get_current_object()  # type: ignore[attr-defined]
    environ = context.request.environ
    sent_id = environ.get("HTTP_X_REQUEST_ID")
    client_id = sent_id if sent_id and _ACCEPTABLE.fullmatch(sent_id) else None
    own_id = new_id()
    of_request = g._get_current_object()
    of_request.request_id, of_request.client_request_id = own_id, client_id
    observed = open_request_of(environ)
    observed.request_id = client_id or str(own_id)
    rule = context.request.url_rule
    observed.route = None if rule is None else rule.rule
    observed.path = observed.route or shown_path(context.request.path)


def _end(response: Response) -> Response:
    observed = open_request()
    response.headers["X-Request-Id"] = observed.request_id or shown_request_id()
    observed.status = response.status_code
    return response


def register_request_ids(app: Flask) -> None:
    """Give every request of the application an id, which every response carries."""
    app.before_request(_begin)
    app.after_request(_end)


class OrjsonProvider(JSONProvider):
    """Flask's JSON by orjson: strict UTF-8, times in RFC 3339, no NaN."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Encode to text; options of the standard library's encoder do not apply."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Decode text or bytes. Raises orjson.JSONDecodeError, a ValueError."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """The response of ``jsonify``, encoded once, straight to bytes."""
        return Response(orjson.dumps(self._prepare_response_obj(args, kwargs)), mimetype="application/json")
