"""``/v1/embeddings`` and ``/v1/rerank``."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, request

from mistral_api.blueprints.access import caller, guard
from mistral_api.blueprints.bodies import json_body
from mistral_api.embeddings.tasks import EMBEDDINGS, RERANK, Task
from mistral_api.generation.asked import Asked
from mistral_api.inference.cancellation import Call
from mistral_api.request_ids import client_request_id, request_id
from mistral_api.services import services

blueprint = guard(Blueprint("embeddings", __name__, url_prefix="/v1"))


@blueprint.post("/embeddings")
def create_embeddings() -> Response:
    """A vector for each input."""
    return _answer(EMBEDDINGS)


@blueprint.post("/rerank")
def rerank() -> Response:
    """The documents, the most relevant first."""
    return _answer(RERANK)


def _answer(task: Task) -> Response:
    call = Call(request.environ.get("waitress.client_disconnected"))
    asked = Asked(caller(), request_id(), client_request_id(), json_body(), call)
    return Response(orjson.dumps(services().embedder.answer(task, asked)), mimetype="application/json")
