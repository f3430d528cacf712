"""``/v1/responses``: OpenAI's Responses API, its state in PostgreSQL."""

from __future__ import annotations

from typing import Literal, TypedDict

from flask import Blueprint, Response, request

from mistral_api.conversations.item_renderer import item_list
from mistral_api.payload_types.responses import Item
from mistral_api.responses.response_object import input_items
from mistral_api.responses.response_service import ResponseService
from mistral_api.web.generation import json_response, planned_response, request_context, stream_response
from mistral_api.web.lazy_response import LazyResponse
from mistral_api.web.request import caller, services
from mistral_api.web.request_body import json_body
from mistral_api.wire import load
from mistral_api.wire.pagination import Deletion, Page, page_of
from mistral_api.wire.queries import InputItemsQuery, ResponseQuery, joined_arguments

blueprint = Blueprint("responses", __name__, url_prefix="/v1/responses")
_QUERY, _ITEMS_QUERY = ResponseQuery(), InputItemsQuery()


class InputTokens(TypedDict):
    """How many tokens the prompt of a request has (OpenAI's ``TokenCountsResource``)."""

    object: Literal["response.input_tokens"]
    input_tokens: int


@blueprint.post("")
def create() -> Response:
    """Generate a response: at once, as a stream of events, or in the background."""
    return planned_response(services().response_service.plan(request_context(json_body())))


@blueprint.post("/input_tokens")
def count_input_tokens() -> InputTokens:
    """How many tokens the model would have to read."""
    return {
        "object": "response.input_tokens",
        "input_tokens": services().response_service.count_input_tokens(request_context(json_body())),
    }


def _service() -> ResponseService:
    """Return what finds responses. What other processes have deleted by now is forgotten."""
    services().deletions.forget_deleted()
    return services().response_service


@blueprint.get("/<response_id>")
def retrieve(response_id: str) -> Response:
    """A response as it is now, or the events of one in the background."""
    query = load(_QUERY, joined_arguments(request.args.to_dict(flat=False)))
    if query["stream"]:
        after = query.get("starting_after", -1)
        events = _service().follow(caller().owner, response_id, after)
        return LazyResponse(lambda: stream_response(events))
    return json_response(_service().find(caller().owner, response_id))


@blueprint.delete("/<response_id>")
def remove(response_id: str) -> Deletion:
    """Delete a response; with the last one of a conversation that no client named, that goes too."""
    owner = caller().owner
    for session_id in services().response_service.delete(owner, response_id):
        services().forget_session(owner, session_id)
    services().forget_answer(owner, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@blueprint.post("/<response_id>/cancel")
def cancel(response_id: str) -> Response:
    """End a response in the background."""
    return json_response(_service().cancel(caller().owner, response_id))


@blueprint.get("/<response_id>/input_items")
def list_input_items(response_id: str) -> Page[Item]:
    """What a response was asked with, as items, the newest first unless asked otherwise."""
    query = load(_ITEMS_QUERY, joined_arguments(request.args.to_dict(flat=False)))
    messages = _service().input(caller().owner, response_id)
    items = input_items([message for _, message in messages], [message_id for message_id, _ in messages])
    return item_list(*page_of(items, query, "Item with id '{}' not found."))
