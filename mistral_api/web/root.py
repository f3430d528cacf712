"""``/``: what a browser, or a client that looks whether somebody is there, finds at the server's bare address."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint, Response, request, url_for

from mistral_api.version import VERSION
from mistral_api.web.generation import json_response

blueprint = Blueprint("root", __name__)

NAME = "Mistral Local API"


class RootBody(TypedDict):
    """What the server is, and where to read on: paths of this server."""

    name: str
    version: str
    docs: str
    openapi: str
    health: str


@blueprint.get("/")
def show_root() -> Response:
    """What this server is; a browser is led to the page of the API."""
    body: RootBody = {
        "name": NAME,
        "version": VERSION,
        "docs": url_for("documentation.show_page"),
        "openapi": url_for("documentation.show_description"),
        "health": url_for("health.show_health"),
    }
    response = json_response(body)
    response.vary.add("Accept")
    if request.method != "HEAD" and _wants_page():
        # Relative, since a proxy may have put the server below a path of its own.
        response.status_code, response.location = 302, "docs"
        response.autocorrect_location_header = False
    return response


def _wants_page() -> bool:
    """Whether HTML is preferred, as browsers do. Programs take anything, or ask for JSON."""
    return request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html"
