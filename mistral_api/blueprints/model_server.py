"""What shows the model server's inside, or changes it for everybody: for the scope ``admin`` alone."""

from __future__ import annotations

from flask import Blueprint, Response, request

from mistral_api.blueprints.access import guard_admin
from mistral_api.blueprints.generations import pass_through
from mistral_api.errors import InvalidRequest
from mistral_api.llama_cpp import endpoints
from mistral_api.schemas.issues import quote_name, quote_value

model_server_blueprint = guard_admin(Blueprint("model_server", __name__))


@model_server_blueprint.get("/slots")
def list_slots() -> Response:
    """What every slot is doing, with the settings of its request."""
    query = "?fail_on_no_slot=1" if request.args.get("fail_on_no_slot") else ""
    return pass_through(endpoints.SLOTS, f"/slots{query}")


@model_server_blueprint.post("/slots/<int:slot>")
def act_on_slot(slot: int) -> Response:
    """Save, restore or erase a slot's cache."""
    action = request.args.get("action", "")
    question = endpoints.SLOT_ACTIONS.get(action)
    if question is None:
        allowed = quote_name(tuple(endpoints.SLOT_ACTIONS))
        text = f"Invalid value: '{quote_value(action)}'. Supported values for 'action': {allowed}."
        raise InvalidRequest(text, code="invalid_value", param="action")
    return pass_through(question, f"/slots/{slot}?action={action}")


@model_server_blueprint.post("/props")
def change_props() -> Response:
    """Change global properties."""
    return pass_through(endpoints.CHANGE_PROPS)


@model_server_blueprint.get("/lora-adapters")
def list_adapters() -> Response:
    """The adapters loaded, with the paths of their files."""
    return pass_through(endpoints.ADAPTERS)


@model_server_blueprint.post("/lora-adapters")
def change_adapters() -> Response:
    """Set the scales of adapters for everybody."""
    return pass_through(endpoints.CHANGE_ADAPTERS)


@model_server_blueprint.post("/models/load")
def load_model() -> Response:
    """Load a model, where llama.cpp runs as a router."""
    return pass_through(endpoints.LOAD_MODEL)


@model_server_blueprint.post("/models/unload")
def unload_model() -> Response:
    """Unload a model, where llama.cpp runs as a router."""
    return pass_through(endpoints.UNLOAD_MODEL)
