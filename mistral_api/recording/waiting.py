"""Waiting until what was recorded can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mistral_api.errors import NotFound, Unavailable
from mistral_api.recording.recorder import Recorder

T = TypeVar("T")

DEADLINE_SECONDS = 2.0


def require_session_recorded(recorder: Recorder, owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    if not recorder.wait_for_session(owner, session_id, DEADLINE_SECONDS):
        raise Unavailable(
            "The newest messages of this conversation are recorded but not readable yet.", code="recording_delayed"
        )


def require_all_recorded(recorder: Recorder) -> None:
    """Wait until every exchange that has ended can be read. Raises Unavailable (``recording_delayed``)."""
    if not recorder.wait_for_all(DEADLINE_SECONDS):
        raise Unavailable("The newest records are kept but not readable yet.", code="recording_delayed")


def retry_until_recorded(recorder: Recorder, find: Callable[[], T]) -> T:
    """What ``find`` finds: at once, or when everything that has ended can be read.

    Raises NotFound, and Unavailable (``recording_delayed``).
    """
    try:
        return find()
    except NotFound:
        require_all_recorded(recorder)
        return find()
