"""The models served in Ollama's own API: the list, the description of one, what is loaded; and what changes nothing."""

from __future__ import annotations

from typing import Final, NoReturn

import orjson
from flask import Blueprint, Response, request

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types.ollama import OllamaProgress, OllamaVersion
from mistral_api.web.errors import handle_errors
from mistral_api.web.generation import LINES, json_response, stream_response
from mistral_api.web.ollama import error_response
from mistral_api.web.request import services
from mistral_api.web.request_body import json_body
from mistral_api.wire import load
from mistral_api.wire.ollama import OllamaNamedModel

blueprint = Blueprint("ollama_models", __name__, url_prefix="/api")
handle_errors(blueprint, error_response)

# The version whose API this is, since clients refuse to talk to one that is too old for them.
OLLAMA_VERSION: Final = "0.32.15"
_NAMED: Final = OllamaNamedModel()
_SUCCESS: OllamaProgress = {"status": "success"}


@blueprint.get("/tags")
def list_models() -> Response:
    """Every model served."""
    return json_response(services().ollama_models.list_models())


@blueprint.get("/ps")
def list_running() -> Response:
    """The models that are loaded."""
    return json_response(services().ollama_models.running())


@blueprint.post("/show")
def show() -> Response:
    """What a model is and can do."""
    return json_response(services().ollama_models.show(_requested_model()))


@blueprint.get("/version")
def show_version() -> OllamaVersion:
    """The version of Ollama whose API this is."""
    return {"version": OLLAMA_VERSION}


@blueprint.post("/pull")
def pull() -> Response:
    """Done at once for a model that is served; any other is refused."""
    body = json_body()
    services().ollama_models.require_served(_model_name(body))
    if isinstance(body, dict) and body.get("stream") is False:
        return json_response(_SUCCESS)
    return stream_response([orjson.dumps(_SUCCESS, option=orjson.OPT_APPEND_NEWLINE)], content_type=LINES)


@blueprint.post("/push")
def push() -> NoReturn:
    """Refused: models are the operator's."""
    _refuse("uploads no models")


@blueprint.post("/create")
def create() -> NoReturn:
    """Refused: models are the operator's."""
    _refuse("creates no models")


@blueprint.post("/copy")
def copy() -> NoReturn:
    """Refused: models are the operator's."""
    _refuse("copies no models; another name for the one that is served is a matter of MODEL_ALIAS")


@blueprint.delete("/delete")
def delete() -> NoReturn:
    """Refused: models are the operator's."""
    _refuse("deletes no models")


@blueprint.route("/blobs/<digest>", methods=["HEAD", "POST"])
def add_blob(digest: str) -> Response:
    """Refused: models are the operator's.

    Whoever asks whether the file is there is told 404, as by Ollama (``HeadBlobHandler`` in ollama/ollama,
    ``server/routes.go``).
    """
    if request.method != "HEAD":
        _refuse("takes no files of models")
    return Response(status=404)


def _refuse(does: str) -> NoReturn:
    text = f"This server {does}. It serves the model that its operator has set (MODEL_PATH)."
    raise InvalidRequest(text, code="not_supported")


def _requested_model() -> str:
    return _model_name(json_body())


def _model_name(body: object) -> str:
    """Return the name in a request; an empty one is the model that is served."""
    named = load(_NAMED, body)
    return named.get("model") or named.get("name") or ""
