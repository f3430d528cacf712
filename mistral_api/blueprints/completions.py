"""``/v1/completions``."""

from __future__ import annotations

from flask import Blueprint, Response

from mistral_api.blueprints.access import guard
from mistral_api.blueprints.generations import answer_generation
from mistral_api.generation.endpoints import COMPLETION

completions_blueprint = guard(Blueprint("completions", __name__, url_prefix="/v1"))


@completions_blueprint.post("/completions")
def create_completion() -> Response:
    """Continue a prompt."""
    return answer_generation(COMPLETION)
