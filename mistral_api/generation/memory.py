"""What was said in a session, put before the messages of a request that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.conversations.history import History
from mistral_api.conversations.matching import chains_of
from mistral_api.conversations.resuming import Message, Resumed, as_sent, repeats_nothing, resumed
from mistral_api.errors import InvalidRequest


class Memory:
    """Recalls sessions. Safe to use from many threads."""

    def __init__(
        self, history: History, kept: Callable[[list[Message]], list[Message] | None], *, always: bool
    ) -> None:
        """``kept`` says what is recorded of messages, None where that is no text; ``always``: also for requests that
        do not say whether they want it (the setting SESSION_HISTORY)."""
        self._history = history
        self._kept = kept
        self._always = always

    def recall(self, payload: dict[str, Any], owner: str) -> Resumed | None:
        """A chat request with its session's history, or None where it wants none.

        Raises InvalidRequest where nothing is kept, Unavailable where it cannot be read now.
        """
        if not payload.get("use_history", self._always):
            return None
        sent: list[Message] = payload["messages"]
        recorded = self._kept(sent)
        if recorded is None:
            raise InvalidRequest(
                "'use_history' needs stored conversations, and this server keeps no text (STORE_CONTENT=false).",
                code="not_supported",
                param="use_history",
            )
        session_id = payload.get("session_id")
        if session_id is None:
            return as_sent(sent)
        return self._resumed(owner, session_id, sent, recorded)

    def _resumed(self, owner: str, session_id: str, sent: list[Message], recorded: list[Message]) -> Resumed:
        branch = self._history.branch(owner, session_id)
        resumption = resumed(branch, sent, recorded)
        # Rarely asked: a client that takes up an older branch sends all of it.
        if repeats_nothing(resumption, sent):
            first_answer = [message["role"] for message in sent].index("assistant")
            if self._history.holds(owner, session_id, chains_of(recorded)[first_answer:]):
                return as_sent(sent)
        return resumption
