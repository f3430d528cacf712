"""The views, one module per URL family: each parses, calls one service and answers."""

from __future__ import annotations

from flask import Flask

from mistral_api.blueprints import (
    anthropic,
    chat,
    completions,
    conversation_items,
    conversations,
    documentation,
    embeddings,
    health,
    llama_cpp,
    model_server,
    models,
    responses,
    stats,
    stored_completions,
)
from mistral_api.services import services

# The probes that orchestrators call need no key and must answer whatever the state of the rest.
API_BLUEPRINTS = (
    chat.chat_blueprint,
    completions.completions_blueprint,
    conversations.blueprint,
    conversation_items.items_blueprint,
    embeddings.embeddings_blueprint,
    models.blueprint,
    responses.blueprint,
    stats.stats_blueprint,
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
    app.register_blueprint(health.blueprint)
    for blueprint in API_BLUEPRINTS:
        app.register_blueprint(blueprint)
