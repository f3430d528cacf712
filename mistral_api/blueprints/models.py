"""``/v1/models``: OpenAI's model list and object, with the context window and the state."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from mistral_api.blueprints.access import guard
from mistral_api.inference.catalogue import Model, not_served
from mistral_api.services import services

blueprint = guard(Blueprint("models", __name__, url_prefix="/v1/models"))


@blueprint.get("")
def list_models() -> dict[str, Any]:
    """Every model served."""
    state = services().model_server.probe()
    return {"object": "list", "data": [_shown(model, state) for model in services().catalogue.models()]}


@blueprint.get("/<path:model_id>")
def retrieve_model(model_id: str) -> dict[str, Any]:
    """One model. Ids may hold slashes, which SDKs send percent-encoded."""
    models = services().catalogue.models()
    for model in models:
        if model.id == model_id:
            return _shown(model, services().model_server.probe())
    raise not_served(model_id, [model.id for model in models])


def _shown(model: Model, state: str) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_window": model.context_window,
        "state": state,
    }
