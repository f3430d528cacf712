"""The states of the model server, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where the model server is in its life, as its supervisor sees it."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"
    BACKOFF = "backoff"
    FATAL = "fatal"
    STOPPING = "stopping"


_RUNNING_ENDS = {State.STOPPING, State.BACKOFF, State.FATAL}

SUCCESSORS: dict[State, set[State]] = {
    State.STOPPED: {State.STARTING, State.FATAL},
    State.STARTING: {State.LOADING, *_RUNNING_ENDS},
    State.LOADING: {State.READY, *_RUNNING_ENDS},
    State.READY: {State.UNRESPONSIVE, *_RUNNING_ENDS},
    State.UNRESPONSIVE: {State.READY, *_RUNNING_ENDS},
    State.BACKOFF: {State.STARTING, State.STOPPING, State.FATAL},
    State.STOPPING: {State.STOPPED},
    State.FATAL: set(),
}


class IllegalTransition(AssertionError):
    """A state was to follow that may not."""


def require_legal(current: State, following: State) -> None:
    """Raise IllegalTransition unless ``following`` may come after ``current``."""
    if following not in SUCCESSORS[current]:
        raise IllegalTransition(f"{following} does not follow {current}")
