"""What was said in a session, put before the messages of a request that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.conversations.history import HistoryReader
from mistral_api.conversations.matching import chains_of
from mistral_api.conversations.resuming import (
    ContinuedSession,
    continue_session,
    has_no_known_prefix,
    restore_attachments,
)
from mistral_api.errors import InvalidRequest
from mistral_api.schemas.payload_types import ChatMessage


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
            return restore_attachments(sent)
        return self._resumed(owner, session_id, sent, recorded)

    def _resumed(
        self, owner: str, session_id: str, sent: list[ChatMessage], recorded: list[ChatMessage]
    ) -> ContinuedSession:
        branch = self._history.branch(owner, session_id)
        resumption = continue_session(branch, sent, recorded)
        # Rarely asked: a client that takes up an older branch sends all of it.
        if has_no_known_prefix(resumption, sent):
            first_answer = [message["role"] for message in sent].index("assistant")
            if self._history.holds(owner, session_id, chains_of(recorded)[first_answer:]):
                return restore_attachments(sent)
        return resumption
