"""The stored history of a session, put before the messages of a request that asks for it (``use_history``).

:class:`SessionHistory` reads the current branch of the session and matches the sent messages with it
(:func:`continue_session`): a client that sends its own history again, all of it or only the last turns, does not
double it. Messages that never got an answer are left out, as ``message_tree`` leaves them aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from uuid import UUID

from sqlalchemy import Engine, Text, bindparam, exists, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import branch_upwards
from mistral_api.conversations.items import resolve_references
from mistral_api.conversations.message_matching import message_chains, message_digest, shared_prefix_length
from mistral_api.conversations.stored_message import prompt_message, row_to_chat_message
from mistral_api.database.errors import translate_database_errors
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.payload_types.responses import Item
from mistral_api.recording.exchange import describe_omitted_attachments
from mistral_api.recording.recorder import Recorder, require_session_recorded, retry_until_recorded

_OWNER, _SESSION = bindparam("owner", type_=Text), bindparam("session_id", type_=Text)
_IN_SESSION = (Conversation.owner == _OWNER, Conversation.session_id == _SESSION)
_WALK = branch_upwards(select(Conversation.head_id).where(*_IN_SESSION).scalar_subquery())
# Leaves out messages that never got an answer, but not the text of an answer that was cut off.
_ANSWERED = (Message.status == "complete") | ((Message.status == "interrupted") & (Message.role == "assistant"))
_BRANCH = (
    select(Message.id, Message.role, Message.content, Message.tool_calls, Message.extra, Message.chain)
    .join(_WALK, Message.id == _WALK.c.id)
    .where(_ANSWERED)
    .order_by(_WALK.c.depth.desc())
)
_CHAINS = bindparam("chains", type_=ARRAY(PGUUID(as_uuid=True)))
_HAS_CHAIN = select(
    exists().where(Message.conversation_id == Conversation.id, *_IN_SESSION, Message.chain == _CHAINS.any_())
)


class SessionHistory:
    """Puts the history of a session before the messages of a request. Safe to use from many threads."""

    def __init__(
        self,
        reader: HistoryReader,
        recordable_messages: Callable[[Sequence[ChatMessage]], list[ChatMessage] | None],
        *,
        always: bool,
    ) -> None:
        """``recordable_messages`` is the recorder's method. ``always`` (the setting SESSION_HISTORY) is for requests
        without ``use_history``."""
        self._reader = reader
        self._recordable_messages = recordable_messages
        self._always = always

    def recall(self, payload: ChatPayload, owner: str) -> ContinuedSession | None:
        """Return a chat request with the history of its session, or None where it does not ask for it.

        Raises InvalidRequest where this server stores no text, and Unavailable where the history cannot be read now.
        """
        if not payload.get("use_history", self._always):
            return None
        sent = payload["messages"]
        recorded = self._recordable_messages(sent)
        if recorded is None:
            raise InvalidRequest(
                "'use_history' needs stored conversations, and this server keeps no text (STORE_CONTENT=false).",
                code="not_supported",
                param="use_history",
            )
        session_id = payload.get("session_id")
        if session_id is None:
            return without_history(sent)
        return self._continue(owner, session_id, sent, recorded)

    def _continue(
        self, owner: str, session_id: str, sent: list[ChatMessage], recorded: list[ChatMessage]
    ) -> ContinuedSession:
        branch = self._reader.branch(owner, session_id)
        continued = continue_session(branch, sent, recorded)
        # The second query is rare. A client that goes back to another branch sends all of that branch.
        if has_no_known_prefix(continued, sent):
            first_answer = [message["role"] for message in sent].index("assistant")
            if self._reader.has_any_chain(owner, session_id, message_chains(recorded)[first_answer:]):
                return without_history(sent)
        return continued


@dataclass(frozen=True, slots=True)
class SessionBranch:
    """The current branch of a session, oldest message first; empty for a session without messages.

    ``head_id`` is the stored message that new ones follow. ``messages`` are in OpenAI's chat form, ready for the
    model; ``chains`` are theirs (``message_matching``).
    """

    head_id: UUID | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)


class HistoryReader:
    """Reads stored messages for requests. Safe to use from many threads."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    def branch(self, owner: str, session_id: str) -> SessionBranch:
        """Return the current branch of an owner's session, in one query.

        Raises Unavailable: ``recording_delayed`` where its newest messages cannot be read yet,
        ``database_unavailable`` without PostgreSQL.
        """
        require_session_recorded(self._recorder, owner, session_id)
        with translate_database_errors(), self._engine.connect() as connection:
            rows = connection.execute(_BRANCH, {"owner": owner, "session_id": session_id}).all()
        if not rows:
            return SessionBranch()
        messages = [prompt_message(row_to_chat_message(row)) for row in rows]
        return SessionBranch(rows[-1].id, messages, [row.chain.hex for row in rows])

    def has_any_chain(self, owner: str, session_id: str, chains: Sequence[str]) -> bool:
        """Return whether any branch of a session has a message with one of these chains. Raises Unavailable."""
        parameters = {"owner": owner, "session_id": session_id, "chains": [UUID(chain) for chain in chains]}
        with translate_database_errors(), self._engine.connect() as connection:
            return bool(connection.scalar(_HAS_CHAIN, parameters))

    def resolve_references(self, owner: str, items: list[Item], field: str) -> list[Item]:
        """Return the items of a request, with stored ones in the place of references.

        Raises as :func:`mistral_api.conversations.items.resolve_references` does, and Unavailable.
        """

        def find() -> list[Item]:
            with translate_database_errors(), Session(self._engine) as session:
                return resolve_references(session, owner, items, field)

        return retry_until_recorded(self._recorder, find)


@dataclass(frozen=True, slots=True)
class ContinuedSession:
    """A chat request that continues a session.

    The model gets ``leading`` (system messages), ``history`` and ``sent``. Of the sent messages ``new`` are to be
    recorded, after the stored message ``continues``; where that is None, their place is found by the messages that
    they repeat.
    """

    leading: list[ChatMessage]
    sent: list[ChatMessage]
    new: list[ChatMessage]
    history: list[ChatMessage] = field(default_factory=list)
    continues: UUID | None = None


def without_history(sent: Sequence[ChatMessage]) -> ContinuedSession:
    """Return a request that brings every message the model is to get."""
    leading = count_leading_system_messages(sent)
    return ContinuedSession(list(sent[:leading]), list(sent[leading:]), list(sent))


def continue_session(
    branch: SessionBranch, sent: Sequence[ChatMessage], recorded: Sequence[ChatMessage]
) -> ContinuedSession:
    """Return the request that puts a stored branch before the sent messages, without any message twice.

    ``recorded`` are the sent messages as they will be stored, so that large attachments match those of the branch.

    - A list that begins like the branch, up to an answer, is the client's own history: nothing is put before it.
    - A list that begins with the end of the branch, an answer among it, resends the last turns: only the rest is new.
    - Any other list is new as a whole.

    Sent system messages replace the stored ones. Without any, the newest stored ones lead.
    """
    if shared_prefix_length(message_chains(recorded), [message["role"] for message in sent], set(branch.chains)):
        return without_history(sent)
    leading = count_leading_system_messages(sent)
    stored = [message for message in branch.messages if not is_system_message(message)]
    rest = list(sent[leading + _resent_length(stored, recorded[leading:]) :])
    stored_systems, sent_systems = _newest_system_messages(branch.messages), list(sent[:leading])
    new_systems = [] if _digests(sent_systems) == _digests(stored_systems) else sent_systems
    history = drop_unanswered_calls(stored, rest)
    return ContinuedSession(sent_systems or stored_systems, rest, new_systems + rest, history, branch.head_id)


def has_no_known_prefix(continued: ContinuedSession, sent: Sequence[ChatMessage]) -> bool:
    """Return whether a list with an answer in it shares nothing with the branch, so that it may belong to another."""
    all_new = len(continued.sent) == len(sent) - count_leading_system_messages(sent)
    return continued.continues is not None and all_new and any(message["role"] == "assistant" for message in sent)


def is_system_message(message: ChatMessage) -> bool:
    """Return whether a message instructs the model (OpenAI's newer name of the role is ``developer``)."""
    return message["role"] in ("system", "developer")


def count_leading_system_messages(messages: Sequence[ChatMessage]) -> int:
    """Return how many system messages a list begins with."""
    return sum(1 for _ in takewhile(is_system_message, messages))


def _newest_system_messages(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the last group of system messages that follow one another."""
    newest: list[ChatMessage] = []
    for message, previous in zip(messages, [None, *messages], strict=False):
        if is_system_message(message):
            newest = [*newest, message] if previous is not None and is_system_message(previous) else [message]
    return newest


def drop_unanswered_calls(stored: Sequence[ChatMessage], sent: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the stored messages without tool calls that never got a result: abandoned, or cut off in the middle.

    Models are not trained on a chat that continues without the result, and the model server refuses half a call since
    its arguments are no JSON.
    """
    messages = [*stored, *sent]
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"} - {None}
    remaining: list[ChatMessage] = []
    for message, following in zip(stored, [*messages[1:], None], strict=False):
        calls = message.get("tool_calls") or []
        has_result = following is not None and following["role"] == "tool"
        if not calls or has_result or any(call.get("id") in answered for call in calls):
            remaining.append(message)
        elif message.get("content"):
            remaining.append(omit(message, ("tool_calls",)))
    return remaining


def _resent_length(stored: Sequence[ChatMessage], sent: Sequence[ChatMessage]) -> int:
    """Return how many messages at the start of a sent list are the end of the stored ones, 0 without an answer."""
    roles = [message["role"] for message in sent]
    if "assistant" not in roles:
        return 0
    first_answer = roles.index("assistant")
    stored_digests, sent_digests = _digests(stored), _digests(sent)
    longest = min(len(stored_digests), len(sent_digests) - 1)
    lengths = range(longest, first_answer, -1)
    return next((length for length in lengths if stored_digests[-length:] == sent_digests[:length]), 0)


def _digests(messages: Sequence[ChatMessage]) -> list[str]:
    return [
        message_digest(message | {"content": describe_omitted_attachments(message.get("content"))})
        for message in messages
    ]
