"""``/v1/models``: OpenAI's model list and object, with the context window and the state."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from mistral_api.upstream.catalogue import CatalogueModel, model_not_found
from mistral_api.web.request import guard, services

blueprint = guard(Blueprint("models", __name__, url_prefix="/v1/models"))


@blueprint.get("")
def list_models() -> dict[str, Any]:
    """Every model served."""
    shown: dict[str, dict[str, Any]] = {}
    for host in services().hosts.all:
        state = host.server.probe()
        for model in host.catalogue.models():
            shown.setdefault(model.id, _shown(model, state))
    return {"object": "list", "data": list(shown.values())}


@blueprint.get("/<path:model_id>")
def retrieve_model(model_id: str) -> dict[str, Any]:
    """One model. Ids may hold slashes, which SDKs send percent-encoded."""
    served = [(model, host) for host in services().hosts.all for model in host.catalogue.models()]
    for model, host in served:
        if model.id == model_id:
            return _shown(model, host.server.probe())
    raise model_not_found(model_id, [model.id for model, _ in served])


def _shown(model: CatalogueModel, state: str) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_window": model.context_window,
        "state": state,
    }
