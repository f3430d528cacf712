"""``/v1/chat/completions``."""

from __future__ import annotations

from flask import Blueprint, Response

from mistral_api.blueprints.access import guard
from mistral_api.blueprints.generations import answer_generation
from mistral_api.generation.endpoints import CHAT

chat_blueprint = guard(Blueprint("chat", __name__, url_prefix="/v1/chat"))


@chat_blueprint.post("/completions")
def create_chat_completion() -> Response:
    """Generate the next message of a chat."""
    return answer_generation(CHAT)
