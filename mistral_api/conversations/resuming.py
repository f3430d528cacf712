"""Going on with a stored branch: what stands before the messages of a request, and which of them are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from uuid import UUID

from mistral_api.conversations.history import SessionBranch
from mistral_api.conversations.matching import chains_of, digest, shared_prefix
from mistral_api.recording.attachments import placeholders_as_text
from mistral_api.schemas.payload_types import ChatMessage


@dataclass(frozen=True, slots=True)
class ContinuedSession:
    """A request that goes on with a session.

    The model gets ``leading`` (system messages), ``stored`` and ``said``; ``new`` is what of the sent messages is
    to be recorded, after the stored message ``continues`` (None where its place is found by what it repeats).
    """

    leading: list[ChatMessage]
    said: list[ChatMessage]
    new: list[ChatMessage]
    stored: list[ChatMessage] = field(default_factory=list)
    continues: UUID | None = None


def restore_attachments(sent: Sequence[ChatMessage]) -> ContinuedSession:
    """A request that brings all that the model is to get."""
    leading = leading_systems(sent)
    return ContinuedSession(list(sent[:leading]), list(sent[leading:]), list(sent))


def continue_session(
    branch: SessionBranch, sent: Sequence[ChatMessage], recorded: Sequence[ChatMessage]
) -> ContinuedSession:
    """The sent messages after the stored ones. A client that sends its history again does not double it.

    ``recorded`` are the sent messages as they will be stored: what is not kept of them is not kept of the stored
    ones either. A sent system message replaces the stored one, else the newest stored one leads.
    """
    if shared_prefix(chains_of(recorded), [message["role"] for message in sent], set(branch.chains)):
        return restore_attachments(sent)
    leading = leading_systems(sent)
    before = [message for message in branch.messages if not is_system(message)]
    said = list(sent[leading + _repeated(before, recorded[leading:]) :])
    stored, systems = _newest_systems(branch.messages), list(sent[:leading])
    changed = [] if _digests(systems) == _digests(stored) else systems
    history = without_open_calls(before, said)
    return ContinuedSession(systems or stored, said, changed + said, history, branch.head_id)


def has_no_known_prefix(resumption: ContinuedSession, sent: Sequence[ChatMessage]) -> bool:
    """Whether a list with an answer in it has nothing in common with the branch: it may belong to another one."""
    all_new = len(resumption.said) == len(sent) - leading_systems(sent)
    return resumption.continues is not None and all_new and any(message["role"] == "assistant" for message in sent)


def is_system(message: ChatMessage) -> bool:
    """Whether a message instructs the model (OpenAI's newer name of the role is ``developer``)."""
    return message["role"] in ("system", "developer")


def leading_systems(messages: Sequence[ChatMessage]) -> int:
    """How many system messages a list begins with."""
    return sum(1 for _ in takewhile(is_system, messages))


def _newest_systems(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The last system messages that stand together."""
    newest: list[ChatMessage] = []
    for message, above in zip(messages, [None, *messages], strict=False):
        if is_system(message):
            newest = [*newest, message] if above is not None and is_system(above) else [message]
    return newest


def without_open_calls(stored: Sequence[ChatMessage], said: Sequence[ChatMessage]) -> list[ChatMessage]:
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
    return [digest(message | {"content": placeholders_as_text(message.get("content"))}) for message in messages]
