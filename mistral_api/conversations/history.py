"""The history put before a request, and which of its messages are new.

What was said in a session, as the model gets it again.

Going on with a stored branch: what stands before the messages of a request, and which of them are new.

What was said in a session, put before the messages of a request that asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, Text, bindparam, exists, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import branch_upwards
from mistral_api.conversations.item_parser import prompt_texts
from mistral_api.conversations.items import resolve_references
from mistral_api.conversations.message_matching import message_chains, message_digest, shared_prefix_length
from mistral_api.database.errors import translate_database_errors
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.errors import InvalidRequest
from mistral_api.recording.exchange import describe_omitted_attachments
from mistral_api.recording.recorder import Recorder, require_session_recorded, retry_until_recorded
from mistral_api.wire.payload_types import ChatMessage

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

    def resolve_references(self, owner: str, items: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
        """Items of a request, with stored ones in the place of those that are only named.

        Raises as :func:`resolve_references` does, and Unavailable.
        """

        def find() -> list[dict[str, Any]]:
            with translate_database_errors(), Session(self._engine) as session:
                return resolve_references(session, owner, items, field)

        return retry_until_recorded(self._recorder, find)

    def has_any_chain(self, owner: str, session_id: str, chains: Sequence[str]) -> bool:
        """Whether any branch of a session has a message with one of these chains. Raises as :meth:`branch` does."""
        wanted = [UUID(chain) for chain in chains]
        with translate_database_errors(), self._engine.connect() as connection:
            given = {"owner": owner, "session_id": session_id, "chains": wanted}
            return bool(connection.scalar(_REPEATED, given))


def chat_message(row: Row[Any]) -> dict[str, Any]:
    """A stored message as a client would send it."""
    own = {"role": row.role, "content": row.content, "tool_calls": row.tool_calls}
    return prompt_message((row.extra or {}) | own)


def prompt_message(message: dict[str, Any]) -> dict[str, Any]:
    """A recorded message as the model gets it again, wherever it was read: nothing in it but content is null."""
    calls = [_without_nulls(call) for call in message.get("tool_calls") or []]
    said = _without_nulls(message) | {"content": _sendable(describe_omitted_attachments(message.get("content")))}
    said.pop("tool_calls", None)
    return said | ({"tool_calls": calls} if calls else {})


def _without_nulls(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _sendable(content: Any) -> Any:
    """The prompts of completions, which are no content of a chat, as parts of text."""
    if not isinstance(content, list) or all(isinstance(part, dict) for part in content):
        return content
    return [{"type": "text", "text": text} for text in prompt_texts(content)]


@dataclass(frozen=True, slots=True)
class ContinuedSession:
    """A request that goes on with a session.

    The model gets ``leading`` (system messages), ``stored`` and ``said``; ``new`` is what of the sent messages is
    to be recorded, after the stored message ``continues`` (None where its place is found by what it repeats).
    """

    leading: list[ChatMessage]
    sent: list[ChatMessage]
    new: list[ChatMessage]
    history: list[ChatMessage] = field(default_factory=list)
    continues: UUID | None = None


def without_history(sent: Sequence[ChatMessage]) -> ContinuedSession:
    """A request that brings all that the model is to get."""
    leading = count_leading_system_messages(sent)
    return ContinuedSession(list(sent[:leading]), list(sent[leading:]), list(sent))


def continue_session(
    branch: SessionBranch, sent: Sequence[ChatMessage], recorded: Sequence[ChatMessage]
) -> ContinuedSession:
    """The sent messages after the stored ones. A client that sends its history again does not double it.

    ``recorded`` are the sent messages as they will be stored: what is not kept of them is not kept of the stored
    ones either. A sent system message replaces the stored one, else the newest stored one leads.
    """
    if shared_prefix_length(message_chains(recorded), [message["role"] for message in sent], set(branch.chains)):
        return without_history(sent)
    leading = count_leading_system_messages(sent)
    before = [message for message in branch.messages if not is_system_message(message)]
    said = list(sent[leading + _repeated(before, recorded[leading:]) :])
    stored, systems = _newest_systems(branch.messages), list(sent[:leading])
    changed = [] if _digests(systems) == _digests(stored) else systems
    history = drop_unanswered_calls(before, said)
    return ContinuedSession(systems or stored, said, changed + said, history, branch.head_id)


def has_no_known_prefix(resumption: ContinuedSession, sent: Sequence[ChatMessage]) -> bool:
    """Whether a list with an answer in it has nothing in common with the branch: it may belong to another one."""
    all_new = len(resumption.sent) == len(sent) - count_leading_system_messages(sent)
    return resumption.continues is not None and all_new and any(message["role"] == "assistant" for message in sent)


def is_system_message(message: ChatMessage) -> bool:
    """Whether a message instructs the model (OpenAI's newer name of the role is ``developer``)."""
    return message["role"] in ("system", "developer")


def count_leading_system_messages(messages: Sequence[ChatMessage]) -> int:
    """How many system messages a list begins with."""
    return sum(1 for _ in takewhile(is_system_message, messages))


def _newest_systems(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The last system messages that stand together."""
    newest: list[ChatMessage] = []
    for message, above in zip(messages, [None, *messages], strict=False):
        if is_system_message(message):
            newest = [*newest, message] if above is not None and is_system_message(above) else [message]
    return newest


def drop_unanswered_calls(stored: Sequence[ChatMessage], said: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The stored messages without calls of tools that never got a result: given up, or cut off in the middle.

    Models are not made for a chat that goes on without one, and half a call is no JSON to the model server.
    """
    every = [*stored, *said]
    answered = {message.get("tool_call_id") for message in every if message["role"] == "tool"} - {None}
    kept: list[ChatMessage] = []
    for message, after in zip(stored, [*every[1:], None], strict=False):
        calls = message.get("tool_calls") or []
        has_result = after is not None and after["role"] == "tool"
        if not calls or has_result or any(call.get("id") in answered for call in calls):
            kept.append(message)
        elif message.get("content"):
            kept.append({name: value for name, value in message.items() if name != "tool_calls"})
    return kept


def _repeated(stored: Sequence[ChatMessage], sent: Sequence[ChatMessage]) -> int:
    """How many messages at the start of a sent list are the end of the stored ones, an answer among them."""
    roles = [message["role"] for message in sent]
    if "assistant" not in roles:
        return 0
    first_answer = roles.index("assistant")
    known, given = _digests(stored), _digests(sent)
    longest = min(len(known), len(given) - 1)
    return next((size for size in range(longest, first_answer, -1) if known[-size:] == given[:size]), 0)


def _digests(messages: Sequence[ChatMessage]) -> list[str]:
    return [
        message_digest(message | {"content": describe_omitted_attachments(message.get("content"))})
        for message in messages
    ]


class SessionHistory:
    """Recalls sessions. Safe to use from many threads."""

    def __init__(
        self, history: HistoryReader, kept: Callable[[list[ChatMessage]], list[ChatMessage] | None], *, always: bool
    ) -> None:
        """``kept`` says what is recorded of messages, None where that is no text; ``always``: also for requests that
        do not say whether they want it (the setting SESSION_HISTORY)."""
        self._history = history
        self._kept = kept
        self._always = always

    def recall(self, payload: dict[str, Any], owner: str) -> ContinuedSession | None:
        """A chat request with its session's history, or None where it wants none.

        Raises InvalidRequest where nothing is kept, Unavailable where it cannot be read now.
        """
        if not payload.get("use_history", self._always):
            return None
        sent: list[ChatMessage] = payload["messages"]
        recorded = self._kept(sent)
        if recorded is None:
            raise InvalidRequest(
                "'use_history' needs stored conversations, and this server keeps no text (STORE_CONTENT=false).",
                code="not_supported",
                param="use_history",
            )
        session_id = payload.get("session_id")
        if session_id is None:
            return without_history(sent)
        return self._resumed(owner, session_id, sent, recorded)

    def _resumed(
        self, owner: str, session_id: str, sent: list[ChatMessage], recorded: list[ChatMessage]
    ) -> ContinuedSession:
        branch = self._history.branch(owner, session_id)
        resumption = continue_session(branch, sent, recorded)
        # Rarely asked: a client that takes up an older branch sends all of it.
        if has_no_known_prefix(resumption, sent):
            first_answer = [message["role"] for message in sent].index("assistant")
            if self._history.has_any_chain(owner, session_id, message_chains(recorded)[first_answer:]):
                return without_history(sent)
        return resumption
