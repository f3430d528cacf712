"""``/v1/embeddings`` and ``/v1/rerank``."""

from __future__ import annotations

from flask import Blueprint, Response

from mistral_api.blueprints.access import guard
from mistral_api.blueprints.bodies import json_body
from mistral_api.blueprints.generations import asked_now, json_response
from mistral_api.embeddings.tasks import EMBEDDINGS, RERANK, Task
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
    return json_response(services().embedder.answer(task, asked_now(json_body())))
