"""llama.cpp's own endpoints: raw prompts, tokens, the template and the properties for clients; what shows the model
server's inside, or changes it for everybody, for the administrator (scope ``admin``) alone."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from mistral_api.errors import InvalidRequest
from mistral_api.generation import llama_cpp_endpoint
from mistral_api.security.api_key import ADMIN
from mistral_api.web.generation import generate, pass_through
from mistral_api.web.request import caller, services
from mistral_api.wire.field_errors import quote_value, quote_words

blueprint = Blueprint("llama_cpp", __name__)


@blueprint.post("/completion")
def complete() -> Response:
    """Continue a raw prompt."""
    return generate(llama_cpp_endpoint.LLAMA_CPP_COMPLETION)


@blueprint.post("/completions")
def completion_alias() -> Response:
    """The same under its other name."""
    return generate(llama_cpp_endpoint.LLAMA_CPP_COMPLETION_ALIAS)


@blueprint.post("/infill")
def infill() -> Response:
    """Fill a gap in code."""
    return generate(llama_cpp_endpoint.INFILL)


@blueprint.post("/tokenize")
def tokenize() -> Response:
    """Text to tokens."""
    return pass_through(llama_cpp_endpoint.TOKENIZE)


@blueprint.post("/detokenize")
def detokenize() -> Response:
    """Tokens to text."""
    return pass_through(llama_cpp_endpoint.DETOKENIZE)


@blueprint.post("/apply-template")
def apply_template() -> Response:
    """Messages to the prompt that the model's template makes of them."""
    return pass_through(llama_cpp_endpoint.APPLY_TEMPLATE)


@blueprint.get("/props")
def show_props() -> Response:
    """The model server's properties; paths are for the operator only."""
    return pass_through(llama_cpp_endpoint.PROPS, select=_visible_props)


def _visible_props(props: Any) -> Any:
    build_info = services().model_servers.main.build_info()
    if build_info is not None and "build_info" in props:
        props = props | {"build_info": build_info}
    return props if ADMIN in caller().scopes else llama_cpp_endpoint.public_props(props)


model_server_blueprint = Blueprint("model_server", __name__)


@model_server_blueprint.get("/slots")
def list_slots() -> Response:
    """What every slot is doing, with the settings of its request."""
    query = "?fail_on_no_slot=1" if request.args.get("fail_on_no_slot") else ""
    return pass_through(llama_cpp_endpoint.SLOTS, f"/slots{query}")


@model_server_blueprint.post("/slots/<int:slot>")
def act_on_slot(slot: int) -> Response:
    """Save, restore or erase a slot's cache."""
    action = request.args.get("action", "")
    endpoint = llama_cpp_endpoint.SLOT_ACTIONS.get(action)
    if endpoint is None:
        allowed = quote_words(tuple(llama_cpp_endpoint.SLOT_ACTIONS))
        text = f"Invalid value: '{quote_value(action)}'. Supported values for 'action': {allowed}."
        raise InvalidRequest(text, code="invalid_value", param="action")
    return pass_through(endpoint, f"/slots/{slot}?action={action}")


@model_server_blueprint.post("/props")
def change_props() -> Response:
    """Change global properties."""
    return pass_through(llama_cpp_endpoint.CHANGE_PROPS)


@model_server_blueprint.get("/lora-adapters")
def list_adapters() -> Response:
    """The adapters loaded, with the paths of their files."""
    return pass_through(llama_cpp_endpoint.ADAPTERS)


@model_server_blueprint.post("/lora-adapters")
def change_adapters() -> Response:
    """Set the scales of adapters for everybody."""
    return pass_through(llama_cpp_endpoint.CHANGE_ADAPTERS)


@model_server_blueprint.post("/models/load")
def load_model() -> Response:
    """Load a model, where llama.cpp runs as a router."""
    return pass_through(llama_cpp_endpoint.LOAD_MODEL)


@model_server_blueprint.post("/models/unload")
def unload_model() -> Response:
    """Unload a model, where llama.cpp runs as a router."""
    return pass_through(llama_cpp_endpoint.UNLOAD_MODEL)
