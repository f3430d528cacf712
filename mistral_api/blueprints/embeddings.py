"""``/v1/embeddings`` and ``/v1/rerank``."""

from __future__ import annotations

from flask import Blueprint, Response

from mistral_api.blueprints.access import guard
from mistral_api.blueprints.bodies import json_body
from mistral_api.blueprints.generations import json_response, request_context
from mistral_api.embeddings.tasks import EMBEDDINGS, RERANK, EmbeddingTask
from mistral_api.services import services

embeddings_blueprint = guard(Blueprint("embeddings", __name__, url_prefix="/v1"))


@embeddings_blueprint.post("/embeddings")
def create_embeddings() -> Response:
    """A vector for each input."""
    return _answer(EMBEDDINGS)


@embeddings_blueprint.post("/rerank")
def rerank() -> Response:
    """The documents, the most relevant first."""
    return _answer(RERANK)


def _answer(task: EmbeddingTask) -> Response:
    return json_response(services().embedder.answer(task, request_context(json_body())))
