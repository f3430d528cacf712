"""``python -m bench.relay PORT UPSTREAM``: the least that a relay in Python does, to compare ours with.

What anybody would write first: Flask, a marshmallow schema, waitress, and ``requests`` towards the model server. It
checks a request, records nothing, knows nobody, and hands bytes on.
"""

from __future__ import annotations

import sys

import requests
import waitress
from flask import Flask, Response, request
from marshmallow import INCLUDE, Schema, fields


class Request(Schema):
    """What every chat completion request has."""

    class Meta:
        """Other fields pass."""

        unknown = INCLUDE

    messages = fields.List(fields.Dict(), required=True)
    stream = fields.Boolean()


app, session, upstream = Flask(__name__), requests.Session(), sys.argv[-1]
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))


@app.post("/v1/chat/completions")
def relay() -> Response:
    """Check a request, send it to the model server, and hand the answer on."""
    body = Request().load(request.get_json())
    headers = {name: value for name, value in request.headers.items() if name == "Authorization"}
    answer = session.post(f"{upstream}/v1/chat/completions", json=body, headers=headers, stream=True, timeout=600)
    content = answer.iter_content(None) if body.get("stream") else answer.content
    return Response(content, answer.status_code, content_type=answer.headers["Content-Type"])


if __name__ == "__main__":
    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=64)
