"""HTTP by Flask. A view reads the request, calls one service, and renders what it returns; one module a URL family."""

from __future__ import annotations

from flask import Flask

from mistral_api.web import (
    anthropic,
    conversations,
    documentation,
    embeddings,
    generation,
    keys,
    llama_cpp,
    metrics,
    models,
    monitoring,
    ollama,
    ollama_models,
    responses,
    root,
    stored_completions,
)
from mistral_api.web.request import services

BLUEPRINTS = (
    root.blueprint,
    monitoring.blueprint,
    generation.chat_blueprint,
    generation.completions_blueprint,
    conversations.blueprint,
    conversations.items_blueprint,
    embeddings.blueprint,
    models.blueprint,
    responses.blueprint,
    monitoring.stats_blueprint,
    metrics.blueprint,
    keys.blueprint,
    stored_completions.blueprint,
    anthropic.blueprint,
    ollama.blueprint,
    ollama_models.blueprint,
    llama_cpp.blueprint,
    llama_cpp.model_server_blueprint,
    documentation.blueprint,
)


def _start_services() -> None:
    services().start()


def register_blueprints(app: Flask) -> None:
    """Register every blueprint with the application. The first request starts the services."""
    app.before_request(_start_services)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
