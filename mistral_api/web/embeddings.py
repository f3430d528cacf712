"""Embeddings and rankings over HTTP."""

from __future__ import annotations

from flask import Blueprint, Response

from mistral_api.embeddings.tasks import EMBEDDINGS, RERANK, EmbeddingTask, ResultT
from mistral_api.payload_types import PayloadT
from mistral_api.web.generation import json_response, request_context
from mistral_api.web.request import services
from mistral_api.web.request_body import json_body

blueprint = Blueprint("embeddings", __name__, url_prefix="/v1")


@blueprint.post("/embeddings")
def create_embeddings() -> Response:
    """A vector for each input."""
    return _embed(EMBEDDINGS)


@blueprint.post("/rerank")
def rerank() -> Response:
    """The documents, the most relevant first."""
    return _embed(RERANK)


def _embed(task: EmbeddingTask[PayloadT, ResultT]) -> Response:
    return json_response(services().embedder.answer(task, request_context(json_body())))
