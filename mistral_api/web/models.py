"""``/v1/models``: OpenAI's model list and object, with context window, state and modalities."""

from __future__ import annotations

from typing import TypedDict

from flask import Blueprint

from mistral_api.upstream.catalogue import CatalogueModel, Modalities, model_not_found
from mistral_api.web.request import services

blueprint = Blueprint("models", __name__, url_prefix="/v1/models")


class ModelArchitecture(TypedDict):
    """What a model takes and makes, in the shape of llama.cpp and of OpenRouter."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelBody(TypedDict):
    """One model, in OpenAI's shape (``Model``) and with three fields of ours."""

    id: str
    object: str
    created: int
    owned_by: str
    context_window: int | None
    state: str
    architecture: ModelArchitecture | None


@blueprint.get("")
def list_models() -> dict[str, object]:
    """Every model served."""
    models: dict[str, ModelBody] = {}
    for server in services().model_servers.all:
        state = server.probe()
        for model in server.catalogue.models():
            models.setdefault(model.id, _model_body(model, state))
    return {"object": "list", "data": list(models.values())}


@blueprint.get("/<path:model_id>")
def retrieve_model(model_id: str) -> ModelBody:
    """One model, or the one that answers for it. Ids may hold slashes, which SDKs send percent-encoded."""
    served = [(model, server) for server in services().model_servers.all for model in server.catalogue.models()]
    for name in (lambda _server: model_id, lambda server: server.catalogue.stand_in(model_id)):
        for model, server in served:
            if model.id == name(server):
                return _model_body(model, server.probe())
    raise model_not_found(model_id, [model.id for model, _ in served])


def _model_body(model: CatalogueModel, state: str) -> ModelBody:
    modalities = model.modalities
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_window": model.context_window,
        "state": state,
        "architecture": None if modalities is None else _architecture(modalities),
    }


def _architecture(modalities: Modalities) -> ModelArchitecture:
    return {"input_modalities": list(modalities.input), "output_modalities": list(modalities.output)}
