"""Chat completions with `store: true`: kept, found, listed, changed.

What is kept of a chat completion made with ``store: true``, so that it can be retrieved.

Stored chat completions: finding, listing, changing and deleting them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select, tuple_
from sqlalchemy.orm import Session

from mistral_api.database.tables.stored import StoredCompletion
from mistral_api.errors import NotFound
from mistral_api.generation.exchange_record import ExchangeOutcome, ExchangeRecord
from mistral_api.recording.exchange import COMPLETION_OBJECT
from mistral_api.upstream.transcript import assemble_body
from mistral_api.wire.pagination import list_body, page_of

# What OpenAI's list of stored completions tells of the request, under the names it has there.
_TOLD = {
    "tools": "tools",
    "tool_choice": "tool_choice",
    "response_format": "response_format",
    "seed": "seed",
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "user": "input_user",
}


def store_completion(exchange: ExchangeRecord, payload: dict[str, Any], session_id: str) -> None:
    """Have a chat completion kept, to be retrieved by the id it is answered with."""

    def finish(ending: ExchangeOutcome) -> dict[str, Any] | None:
        if ending.status != "complete":
            return None
        return assemble_body(ending.transcript, chat=True) | {"session_id": session_id}

    storing = {
        "object": COMPLETION_OBJECT,
        "metadata": payload.get("metadata") or {},
        "request": {"request_id": exchange.record.public_request_id}
        | {shown: payload[name] for name, shown in _TOLD.items() if name in payload},
    }
    exchange.store_as(storing, finish)


_POSITION = tuple_(StoredCompletion.created_at, StoredCompletion.id)


def find_completion(session: Session, owner: str, completion_id: str, param: str = "completion_id") -> StoredCompletion:
    """An owner's stored completion. Raises NotFound, also for one that belongs to somebody else."""
    # PostgreSQL knows no NUL character, and cannot be asked for one.
    found = session.get(StoredCompletion, (owner, completion_id)) if "\0" not in completion_id else None
    if found is None:
        raise NotFound(f"Chat completion with id '{completion_id[:100]}' not found.", param=param)
    return found


def list_completions(session: Session, owner: str, query: dict[str, Any]) -> tuple[Sequence[StoredCompletion], bool]:
    """A page of an owner's stored completions, and whether more follow.

    ``query`` holds ``limit``, ``order`` (``asc`` or ``desc`` by time) and maybe ``after`` (a completion's id),
    ``model`` and ``metadata`` (pairs that must all be there). Raises NotFound for an unknown ``after``.
    """
    found = select(StoredCompletion).where(StoredCompletion.owner == owner)
    if query.get("model") is not None:
        found = found.where(StoredCompletion.model == query["model"])
    if query.get("metadata"):
        found = found.where(StoredCompletion.attributes.contains(query["metadata"]))
    if query.get("after") is not None:
        found = _beyond(found, find_completion(session, owner, query["after"], "after"), query["order"])
    moments = (StoredCompletion.created_at, StoredCompletion.id)
    ordered = moments if query["order"] == "asc" else tuple(column.desc() for column in moments)
    rows = session.scalars(found.order_by(*ordered).limit(query["limit"] + 1)).all()
    return rows[: query["limit"]], len(rows) > query["limit"]


def _beyond(found: Select[StoredCompletion], last: StoredCompletion, order: str) -> Select[StoredCompletion]:
    position = tuple_(last.created_at, last.id)
    return found.where(position < _POSITION if order == "asc" else position > _POSITION)


def change_completion(session: Session, owner: str, completion_id: str, metadata: dict[str, str]) -> StoredCompletion:
    """Give a stored completion other metadata. Raises NotFound."""
    completion = find_completion(session, owner, completion_id)
    completion.attributes = metadata
    session.commit()
    return completion


def delete_completion(session: Session, owner: str, completion_id: str) -> None:
    """Delete a stored completion; its conversation stays. Raises NotFound."""
    find_completion(session, owner, completion_id)
    session.execute(
        delete(StoredCompletion).where(StoredCompletion.owner == owner, StoredCompletion.id == completion_id)
    )
    session.commit()


def completion_body(completion: StoredCompletion) -> dict[str, Any]:
    """The completion as it was answered, with its metadata (OpenAI's ``CreateChatCompletionResponse``)."""
    return completion.body | {"metadata": completion.attributes}


def completions_body(completions: Sequence[StoredCompletion], has_more: bool) -> dict[str, Any]:
    """A page of stored completions (OpenAI's ``ChatCompletionList``)."""
    return list_body([completion_body(completion) for completion in completions], has_more)


def messages_body(completion: StoredCompletion, query: dict[str, Any]) -> dict[str, Any]:
    """A page of the messages a completion was made from (OpenAI's ``ChatCompletionMessageList``).

    ``query`` holds ``limit``, ``order`` and maybe ``after`` (a message's id). Raises NotFound for an unknown one.
    """
    messages = [_message_body(completion, number, each) for number, each in enumerate(completion.messages)]
    return list_body(*page_of(messages, query, "Message with id '{}' not found in this completion."))


def _message_body(completion: StoredCompletion, number: int, message: dict[str, Any]) -> dict[str, Any]:
    """A message with an id of its own; parts stand in ``content_parts``, and ``content`` is text or null."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    shown = {"refusal": None, "name": None} | message
    return shown | {
        "id": f"{completion.id}-{number}",
        "content": content if parts is None else None,
        "content_parts": parts,
    }
