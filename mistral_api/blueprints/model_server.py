"""What shows the model server's inside, or changes it for everybody: for the scope ``admin`` alone."""

from __future__ import annotations

from flask import Blueprint, Response, request

from mistral_api.blueprints.access import guard_admin
from mistral_api.blueprints.generations import answer_question
from mistral_api.errors import InvalidRequest
from mistral_api.llama_cpp import endpoints
from mistral_api.schemas.issues import quoted, shown

blueprint = guard_admin(Blueprint("model_server", __name__))


@blueprint.get("/slots")
def list_slots() -> Response:
    """What every slot is doing, with the settings of its request."""
    query = "?fail_on_no_slot=1" if request.args.get("fail_on_no_slot") else ""
    return answer_question(endpoints.SLOTS, f"/slots{query}")


@blueprint.post("/slots/<int:slot>")
def act_on_slot(slot: int) -> Response:
    """Save, restore or erase a slot's cache."""
    action = request.args.get("action", "")
    question = endpoints.SLOT_ACTIONS.get(action)
    if question is None:
        allowed = quoted(tuple(endpoints.SLOT_ACTIONS))
        text = f"Invalid value: '{shown(action)}'. Supported values for 'action': {allowed}."
        raise InvalidRequest(text, code="invalid_value", param="action")
    return answer_question(question, f"/slots/{slot}?action={action}")


@blueprint.post("/props")
def change_props() -> Response:
    """Change global properties."""
    return answer_question(endpoints.CHANGE_PROPS)


@blueprint.get("/lora-adapters")
def list_adapters() -> Response:
    """The adapters loaded, with the paths of their files."""
    return answer_question(endpoints.ADAPTERS)


@blueprint.post("/lora-adapters")
def change_adapters() -> Response:
    """Set the scales of adapters for everybody."""
    return answer_question(endpoints.CHANGE_ADAPTERS)


@blueprint.post("/models/load")
def load_model() -> Response:
    """Load a model, where llama.cpp runs as a router."""
    return answer_question(endpoints.LOAD_MODEL)


@blueprint.post("/models/unload")
def unload_model() -> Response:
    """Unload a model, where llama.cpp runs as a router."""
    return answer_question(endpoints.UNLOAD_MODEL)
