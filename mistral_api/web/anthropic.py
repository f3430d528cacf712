"""``/v1/messages``: Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response

from mistral_api.generation.anthropic_renderer import MessageEvents, anthropic_error, anthropic_message
from mistral_api.generation.anthropic_request import COUNT_TOKENS, MESSAGES
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.web.generation import generate, json_response, pass_through, stream_response
from mistral_api.web.request import guard, shown_request_id

blueprint = guard(Blueprint("anthropic", __name__, url_prefix="/v1/messages"))


@blueprint.post("")
def create_message() -> Response:
    """Generate the next message of a conversation."""
    body, given = generate(MESSAGES)
    model = body.get("model")
    if isinstance(given.body, GenerationPipeline):
        return stream_response(MessageEvents(given.body, model), given.session_id)
    message = anthropic_message(given.body, model) | {"session_id": given.session_id}
    return json_response(message, given.session_id)


@blueprint.post("/count_tokens")
def count_tokens() -> Response:
    """How many tokens a request would have."""
    return pass_through(COUNT_TOKENS, shown=_count)


def _count(answer: Any) -> dict[str, Any]:
    return {"input_tokens": answer["input_tokens"]}


@blueprint.after_request
def _in_their_words(response: Response) -> Response:
    """Errors in Anthropic's shape, and the request id under the name that its clients read."""
    response.headers["request-id"] = shown_request_id()
    if response.status_code >= 400:
        error = anthropic_error(orjson.loads(response.get_data()), response.status_code)
        response.set_data(orjson.dumps(error | {"request_id": shown_request_id()}))
    return response
