"""The views, one module per URL family: each parses, calls one service and answers."""

from __future__ import annotations

from flask import Flask

from mistral_api.web import (
    anthropic,
    conversations,
    documentation,
    generation,
    llama_cpp,
    models,
    monitoring,
    responses,
    stored_completions,
)
from mistral_api.web import conversations as conversation_items
from mistral_api.web import llama_cpp as model_server
from mistral_api.web.request import services

# The probes that orchestrators call need no key and must answer whatever the state of the rest.
API_BLUEPRINTS = (
    generation.chat_blueprint,
    generation.completions_blueprint,
    conversations.blueprint,
    conversation_items.items_blueprint,
    generation.embeddings_blueprint,
    models.blueprint,
    responses.blueprint,
    monitoring.stats_blueprint,
    stored_completions.blueprint,
    anthropic.blueprint,
    llama_cpp.blueprint,
    model_server.model_server_blueprint,
    documentation.blueprint,
)


def _start_services() -> None:
    services().start()


def register_blueprints(app: Flask) -> None:
    """Attach every URL family to the application."""
    app.before_request(_start_services)
    app.register_blueprint(monitoring.blueprint)
    for blueprint in API_BLUEPRINTS:
        app.register_blueprint(blueprint)
