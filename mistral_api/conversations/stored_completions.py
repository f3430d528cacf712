"""Stored chat completions (``store: true``): found, listed, changed and deleted."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, delete, select, tuple_
from sqlalchemy.orm import Session

from mistral_api.database.tables.stored import StoredCompletion
from mistral_api.errors import NotFound
from mistral_api.payload_types.chat import ChatMessage, ContentPart, Prompts
from mistral_api.payload_types.completions import Completion
from mistral_api.wire.pagination import Page, PageFilter, list_body, page_of
from mistral_api.wire.queries import CompletionFilter

_POSITION = tuple_(StoredCompletion.created_at, StoredCompletion.id)


class CompletionMessage(ChatMessage):
    """A message of a completion's request (OpenAI's ``ChatCompletionMessageList.data``), whose parts stand apart."""

    id: str
    content_parts: list[ContentPart] | Prompts | None


def find_completion(session: Session, owner: str, completion_id: str, param: str = "completion_id") -> StoredCompletion:
    """Return an owner's stored completion. Raises NotFound, which names ``param``, also for another owner's."""
    # PostgreSQL has no NUL character, not even in a parameter.
    completion = session.get(StoredCompletion, (owner, completion_id)) if "\0" not in completion_id else None
    if completion is None:
        raise NotFound(f"Chat completion with id '{completion_id[:100]}' not found.", param=param)
    return completion


def list_completions(session: Session, owner: str, query: CompletionFilter) -> tuple[Sequence[StoredCompletion], bool]:
    """Return a page of an owner's stored completions, and whether more follow. Raises NotFound for ``after``."""
    selected = select(StoredCompletion).where(StoredCompletion.owner == owner)
    if query.get("model") is not None:
        selected = selected.where(StoredCompletion.model == query["model"])
    if query.get("metadata"):
        selected = selected.where(StoredCompletion.attributes.contains(query["metadata"]))
    if query.get("after") is not None:
        last = find_completion(session, owner, query["after"], "after")
        selected = _select_beyond(selected, last, query["order"])
    columns = (StoredCompletion.created_at, StoredCompletion.id)
    order = columns if query["order"] == "asc" else tuple(column.desc() for column in columns)
    rows = session.scalars(selected.order_by(*order).limit(query["limit"] + 1)).all()
    return rows[: query["limit"]], len(rows) > query["limit"]


def _select_beyond(selected: Select[StoredCompletion], last: StoredCompletion, order: str) -> Select[StoredCompletion]:
    position = tuple_(last.created_at, last.id)
    return selected.where(position < _POSITION if order == "asc" else position > _POSITION)


def change_completion(session: Session, owner: str, completion_id: str, metadata: dict[str, str]) -> StoredCompletion:
    """Replace the metadata of a stored completion. Raises NotFound."""
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


def completion_body(completion: StoredCompletion) -> Completion:
    """Return a completion as its client received it, with its metadata (OpenAI's ``CreateChatCompletionResponse``)."""
    return completion.body | {"metadata": completion.attributes}


def completions_body(completions: Sequence[StoredCompletion], has_more: bool) -> Page[Completion]:
    """Return a page of stored completions (OpenAI's ``ChatCompletionList``)."""
    return list_body([completion_body(completion) for completion in completions], has_more)


def messages_body(completion: StoredCompletion, query: PageFilter) -> Page[CompletionMessage]:
    """Return a page of the messages of a completion's request (OpenAI's ``ChatCompletionMessageList``).

    Raises NotFound for an unknown ``after``.
    """
    messages = [_message_body(completion, number, each) for number, each in enumerate(completion.messages)]
    return list_body(*page_of(messages, query, "Message with id '{}' not found in this completion."))


def _message_body(completion: StoredCompletion, number: int, message: ChatMessage) -> CompletionMessage:
    """Return a message with an id. Its parts stand in ``content_parts``; ``content`` is text or null."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "refusal": None,
        "name": None,
        **message,
        "id": f"{completion.id}-{number}",
        "content": content if parts is None else None,
        "content_parts": parts,
    }
