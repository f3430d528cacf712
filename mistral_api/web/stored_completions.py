"""``/v1/chat/completions``, as far as it concerns stored completions (``store: true``).

The docstring of a view is its summary in ``/openapi.json``.
"""

from __future__ import annotations

from flask import Blueprint, request

from mistral_api.conversations.stored_completions import (
    CompletionMessage,
    change_completion,
    completion_body,
    completions_body,
    delete_completion,
    messages_body,
)
from mistral_api.payload_types.completions import Completion
from mistral_api.recording.exchange import COMPLETION_OBJECT
from mistral_api.web.database_session import database_session
from mistral_api.web.request import caller, services
from mistral_api.web.request_body import json_body
from mistral_api.wire import CompletionListQuery, PageQuery, load, load_metadata
from mistral_api.wire.pagination import Deletion, Page
from mistral_api.wire.queries import gathered_metadata

blueprint = Blueprint("stored_completions", __name__, url_prefix="/v1/chat/completions")
_LIST_QUERY, _PAGE_QUERY = CompletionListQuery(), PageQuery()


@blueprint.get("")
def list_all() -> Page[Completion]:
    """The caller's stored completions."""
    query = load(_LIST_QUERY, gathered_metadata(request.args.to_dict()))
    return completions_body(*services().completion_reader.list_page(caller().owner, query))


@blueprint.get("/<completion_id>")
def retrieve(completion_id: str) -> Completion:
    """A stored completion as it was answered."""
    return completion_body(services().completion_reader.find(caller().owner, completion_id))


@blueprint.post("/<completion_id>")
def change(completion_id: str) -> Completion:
    """Replace the metadata of a stored completion."""
    metadata, owner = load_metadata(json_body()), caller().owner
    services().recorder.require_object_delivered(COMPLETION_OBJECT, owner, completion_id)
    with database_session() as session:
        return completion_body(change_completion(session, owner, completion_id, metadata))


@blueprint.delete("/<completion_id>")
def remove(completion_id: str) -> Deletion:
    """Delete a stored completion."""
    owner = caller().owner
    services().recorder.require_object_delivered(COMPLETION_OBJECT, owner, completion_id)
    with database_session() as session:
        delete_completion(session, owner, completion_id)
    services().forget_answer(owner)
    return {"object": "chat.completion.deleted", "id": completion_id, "deleted": True}


@blueprint.get("/<completion_id>/messages")
def list_messages(completion_id: str) -> Page[CompletionMessage]:
    """The messages a stored completion was made from."""
    query = load(_PAGE_QUERY, request.args.to_dict())
    return messages_body(services().completion_reader.find(caller().owner, completion_id), query)
