"""``/openapi.json`` and ``/docs``: the description of the API, and a page to read and try it, without a network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import orjson
from flask import Blueprint, Response, current_app, request, send_from_directory

from mistral_api.errors import NotFound

blueprint = Blueprint("documentation", __name__)

_PAGE = Path(str(files("mistral_api.web") / "page"))
# Swagger UI as flask-swagger-ui ships it. Its own view makes a page with an inline script, which our policy forbids.
_SWAGGER_UI = Path(str(files("flask_swagger_ui") / "dist"))
_ASSETS = {
    "start.js": _PAGE,
    "swagger-ui.css": _SWAGGER_UI,
    "swagger-ui-bundle.js": _SWAGGER_UI,
    "favicon-32x32.png": _SWAGGER_UI,
}
# The page loads nothing from elsewhere, sends nothing elsewhere, and no other site can show it in a frame. Swagger UI
# sets inline styles, and has its pictures in the style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DAY = 86_400


@blueprint.get("/openapi.json")
def show_description() -> Response:
    """This description, OpenAPI 3.1."""
    response = Response(_description(), mimetype="application/json")
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response


def _description() -> bytes:
    """Return the document. It is made once, when it is first asked for: that takes longer than a request should."""
    document: bytes | None = current_app.extensions.get("openapi")
    if document is None:
        from mistral_api.web.openapi_document import build_document  # noqa: PLC0415 - brings apispec

        document = current_app.extensions["openapi"] = orjson.dumps(build_document(current_app))
    return document


@blueprint.get("/docs")
def show_page() -> Response:
    """A page to read this description and to try the API."""
    response = send_from_directory(_PAGE, "index.html", max_age=0)
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@blueprint.get("/docs/<name>")
def show_asset(name: str) -> Response:
    """What the page is made of."""
    if name not in _ASSETS:
        raise NotFound("The page has no such part.", param="name")
    return send_from_directory(_ASSETS[name], name, max_age=_DAY)
