"""``/v1/messages``: Anthropic's Messages API."""

from __future__ import annotations

from typing import Any, TypedDict

import orjson
from flask import Blueprint, Response

from mistral_api.errors import ApiError, error_headers
from mistral_api.generation.anthropic_renderer import anthropic_error
from mistral_api.generation.anthropic_request import COUNT_TOKENS, MESSAGES
from mistral_api.web.errors import handle_errors
from mistral_api.web.generation import generate, pass_through
from mistral_api.web.request import shown_request_id

blueprint = Blueprint("anthropic", __name__, url_prefix="/v1/messages")


class AnthropicTokenCount(TypedDict):
    """How many tokens a request has (``MessageTokensCount`` of the ``anthropic`` package)."""

    input_tokens: int


@blueprint.post("")
def create_message() -> Response:
    """Generate the next message of a conversation."""
    return generate(MESSAGES)


@blueprint.post("/count_tokens")
def count_tokens() -> Response:
    """How many tokens a request would have."""
    return pass_through(COUNT_TOKENS, select=_token_count)


def _token_count(response: Any) -> AnthropicTokenCount:
    return {"input_tokens": response["input_tokens"]}


def _error_response(error: ApiError) -> Response:
    """Return an error in Anthropic's shape."""
    body = anthropic_error(error, error.status) | {"request_id": shown_request_id()}
    return Response(orjson.dumps(body), status=error.status, headers=error_headers(error), mimetype="application/json")


handle_errors(blueprint, _error_response)


@blueprint.after_request
def _name_request(response: Response) -> Response:
    """Anthropic's clients read the request id under another name."""
    response.headers["request-id"] = shown_request_id()
    return response
