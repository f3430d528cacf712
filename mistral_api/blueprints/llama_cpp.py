"""llama.cpp's own endpoints: raw prompts, tokens, the template and the properties."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from mistral_api.blueprints.access import caller, guard
from mistral_api.blueprints.generations import generate, json_response, pass_through, stream_response
from mistral_api.generation.endpoints import Endpoint
from mistral_api.generation.streaming import GenerationPipeline
from mistral_api.llama_cpp import endpoints
from mistral_api.llama_cpp.answers import selected
from mistral_api.llama_cpp.stream import NativeEvents
from mistral_api.security.access import ADMIN

blueprint = guard(Blueprint("llama_cpp", __name__))


@blueprint.post("/completion")
def complete() -> Response:
    """Continue a raw prompt."""
    return _answer(endpoints.COMPLETION)


@blueprint.post("/completions")
def completion_alias() -> Response:
    """The same under its other name."""
    return _answer(endpoints.COMPLETIONS)


@blueprint.post("/infill")
def infill() -> Response:
    """Fill a gap in code."""
    return _answer(endpoints.INFILL)


def _answer(endpoint: Endpoint) -> Response:
    body, given = generate(endpoint)
    fields = body.get("response_fields")
    if isinstance(given.body, GenerationPipeline):
        return stream_response(NativeEvents(given.body, fields), given.session_id)
    answers = [selected(answer, fields) for answer in given.body["answers"]]
    return json_response(answers[0] if len(answers) == 1 else answers, given.session_id)


@blueprint.post("/tokenize")
def tokenize() -> Response:
    """Text to tokens."""
    return pass_through(endpoints.TOKENIZE)


@blueprint.post("/detokenize")
def detokenize() -> Response:
    """Tokens to text."""
    return pass_through(endpoints.DETOKENIZE)


@blueprint.post("/apply-template")
def apply_template() -> Response:
    """Messages to the prompt that the model's template makes of them."""
    return pass_through(endpoints.APPLY_TEMPLATE)


@blueprint.get("/props")
def show_props() -> Response:
    """The model server's properties; paths are for the operator only."""
    return pass_through(endpoints.PROPS, shown=_shown)


def _shown(props: Any) -> Any:
    return props if ADMIN in caller().scopes else endpoints.shown_props(props)
