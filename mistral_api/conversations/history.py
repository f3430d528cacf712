"""What was said in a session, as the model gets it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, Text, bindparam, exists, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.orm import Session

from mistral_api.conversations.branch import branch_upwards
from mistral_api.conversations.references import resolve_references
from mistral_api.database_errors import translate_database_errors
from mistral_api.items.parts import prompt_texts
from mistral_api.recording.attachments import placeholders_as_text
from mistral_api.recording.recorder import Recorder
from mistral_api.recording.waiting import require_session_recorded, retry_until_recorded
from mistral_api.tables.conversation import Conversation, Message

_OWNER, _SESSION = bindparam("owner", type_=Text), bindparam("session_id", type_=Text)
_OURS = (Conversation.owner == _OWNER, Conversation.session_id == _SESSION)
_WALK = branch_upwards(select(Conversation.head_id).where(*_OURS).scalar_subquery())
# What was never answered is no part of it (conversations.tree leaves it aside too); what an answer said before it
# was cut off is.
_ANSWERED = (Message.status == "complete") | ((Message.status == "interrupted") & (Message.role == "assistant"))
_BRANCH = (
    select(Message.id, Message.role, Message.content, Message.tool_calls, Message.extra, Message.chain)
    .join(_WALK, Message.id == _WALK.c.id)
    .where(_ANSWERED)
    .order_by(_WALK.c.depth.desc())
)
_CHAINS = bindparam("chains", type_=ARRAY(PGUUID(as_uuid=True)))
_REPEATED = select(exists().where(Message.conversation_id == Conversation.id, *_OURS, Message.chain == _CHAINS.any_()))


@dataclass(frozen=True, slots=True)
class SessionBranch:
    """The current branch of a session, oldest message first; empty where nothing was said.

    ``head_id`` is the stored message that new ones follow. ``messages`` are in OpenAI's chat form, ready to be
    sent; ``chains`` are what they are recognised by (conversations.matching).
    """

    head_id: UUID | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)


class HistoryReader:
    """Reads what was said. Safe to use from many threads."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    def branch(self, owner: str, session_id: str) -> SessionBranch:
        """The current branch of an owner's session, in one query.

        Raises Unavailable: ``recording_delayed`` where the newest of it is not readable yet,
        ``database_unavailable`` without PostgreSQL.
        """
        require_session_recorded(self._recorder, owner, session_id)
        with translate_database_errors(), self._engine.connect() as connection:
            rows = connection.execute(_BRANCH, {"owner": owner, "session_id": session_id}).all()
        if not rows:
            return SessionBranch()
        return SessionBranch(rows[-1].id, [chat_message(row) for row in rows], [row.chain.hex for row in rows])

    def with_references(self, owner: str, items: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
        """Items of a request, with stored ones in the place of those that are only named.

        Raises as :func:`resolve_references` does, and Unavailable.
        """

        def find() -> list[dict[str, Any]]:
            with translate_database_errors(), Session(self._engine) as session:
                return resolve_references(session, owner, items, field)

        return retry_until_recorded(self._recorder, find)

    def holds(self, owner: str, session_id: str, chains: Sequence[str]) -> bool:
        """Whether any branch of a session has a message with one of these chains. Raises as :meth:`branch` does."""
        wanted = [UUID(chain) for chain in chains]
        with translate_database_errors(), self._engine.connect() as connection:
            given = {"owner": owner, "session_id": session_id, "chains": wanted}
            return bool(connection.scalar(_REPEATED, given))


def chat_message(row: Row[Any]) -> dict[str, Any]:
    """A stored message as a client would send it."""
    own = {"role": row.role, "content": row.content, "tool_calls": row.tool_calls}
    return prompt_messages((row.extra or {}) | own)


def prompt_messages(message: dict[str, Any]) -> dict[str, Any]:
    """A recorded message as the model gets it again, wherever it was read: nothing in it but content is null."""
    calls = [_without_nulls(call) for call in message.get("tool_calls") or []]
    said = _without_nulls(message) | {"content": _sendable(placeholders_as_text(message.get("content")))}
    said.pop("tool_calls", None)
    return said | ({"tool_calls": calls} if calls else {})


def _without_nulls(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _sendable(content: Any) -> Any:
    """The prompts of completions, which are no content of a chat, as parts of text."""
    if not isinstance(content, list) or all(isinstance(part, dict) for part in content):
        return content
    return [{"type": "text", "text": text} for text in prompt_texts(content)]
