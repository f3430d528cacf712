"""What of ``/health`` needs attention, most urgent first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mistral_api.control.attention import (
    Attention,
    AttentionLevel,
    attention,
    attention_to_settings,
    most_urgent_first,
)
from mistral_api.control.status import ModelServerStatus, State
from mistral_api.database.probe import DatabaseHealth
from mistral_api.embedded.postgres import EmbeddedHealth
from mistral_api.observability.server_health import ProcessesHealth
from mistral_api.recording.recorder import RecordingState
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.upstream.model_servers import ModelServerHealth

FAILURE, WARNING, NOTICE = AttentionLevel
_TROUBLES = "docs/troubleshooting.md"
# An exchange is delivered within a second or so. One that waits for so long waits for something.
LONG_WAIT_SECONDS = 60.0
_STARTING = (State.STARTING, State.LOADING)
# What is the matter with a model server in each of the other states, after its name.
_STATES = {
    State.STOPPED: "does not run",
    State.UNRESPONSIVE: "does not answer",
    State.BACKOFF: "has ended, and is started again",
    State.FATAL: "is given up",
    State.STOPPING: "is being stopped",
}


def public_attention(items: Iterable[Attention]) -> list[Attention]:
    """Return what strangers may know: what the rest of their ``/health`` says too, and no command."""
    return [item | {"command": None, "documentation": None} for item in items if item["code"] not in _PRIVATE]


# What the model runs with, and why.
_PRIVATE = ("less_memory", "idle_card", "base_model")


def attention_to_model_servers(main: ModelServerHealth, embedding: ModelServerHealth | None) -> Iterator[Attention]:
    """Give the model servers that are not ready."""
    if main["engine"] == "external":
        yield from _external(main)
    else:
        yield from _own("model_server", "The model server", main, FAILURE, "requests are refused")
    if embedding is not None:
        yield from _own("embedding_server", "The embedding server", embedding, WARNING, "there are no embeddings")


def _own(code: str, name: str, health: ModelServerHealth, level: AttentionLevel, effect: str) -> Iterator[Attention]:
    state = State(health["state"])
    if state is State.READY:
        return
    if state in _STARTING:
        yield attention(f"{code}_starting", WARNING, f"{name} loads its model; requests wait for it.")
        return
    command = f"{project_command('supervisor')} status" if state is not State.STOPPED else project_command("serve")
    page = "docs/operation.md#the-model-server-and-its-supervisor"
    yield attention(f"{code}_{state.value}", level, f"{name} {_STATES[state]}: {effect}.", command, page)


def _external(health: ModelServerHealth) -> Iterator[Attention]:
    if health["state"] == State.READY:
        return
    sentence = "The model server of MODEL_SERVER_URL is not ready: requests are refused."
    command = installed_command("mistral-api doctor")
    yield attention("model_server_unreachable", FAILURE, sentence, command, "docs/operation.md#start")


def attention_to_records(
    recording: RecordingState, database: DatabaseHealth, embedded: EmbeddedHealth | None
) -> Iterator[Attention]:
    """Give what keeps exchanges from being recorded."""
    doctor = installed_command("mistral-api doctor")
    if not recording.healthy:
        sentence = (
            "The journal cannot be written, so what is answered now is not recorded: the disk of DATA_DIR is full "
        )
        yield attention("journal_failing", FAILURE, f"{sentence}or read-only.", doctor, _TROUBLES)
    waiting = f"{_exchanges(recording.pending)} in the journal"
    if embedded is not None and embedded["state"] == "given_up":
        sentence = f"The embedded PostgreSQL does not start any more: answers go on, and {waiting}."
        yield attention("database_given_up", FAILURE, sentence, doctor, "docs/operation.md#the-embedded-postgresql")
    elif database["status"] != "ok":
        sentence = f"PostgreSQL cannot be used: answers go on, and {waiting}."
        yield attention("database_unavailable", WARNING, sentence, doctor, "docs/operation.md#delivery-to-postgresql")
    elif database["schema"] == "behind":
        sentence = f"The tables in PostgreSQL are of an older version: {waiting}."
        yield attention("schema_behind", WARNING, sentence, installed_command("flask db upgrade"), _TROUBLES)
    elif (recording.oldest_pending_seconds or 0.0) > LONG_WAIT_SECONDS:
        sentence = f"PostgreSQL can be used, but {waiting}, the oldest for {recording.oldest_pending_seconds:.0f} s."
        yield attention("records_waiting", WARNING, sentence, doctor, "docs/operation.md#delivery-to-postgresql")
    if recording.rejected:
        sentence = f"{recording.rejected} exchanges were set aside, since PostgreSQL refuses them."
        yield attention("records_rejected", WARNING, sentence, None, "docs/operation.md#what-is-recorded")


def _exchanges(waiting: int) -> str:
    """Return how many exchanges wait, in words; without a number where none does yet."""
    return "1 exchange waits" if waiting == 1 else f"{waiting or ''} exchanges wait".lstrip()


def attention_to_processes(processes: ProcessesHealth | None) -> Iterator[Attention]:
    """Give API processes that do not serve."""
    if processes is not None and processes["status"] != "ok":
        sentence = f"{processes['running']} of {processes['configured']} API processes serve."
        page = "docs/operation.md#several-api-processes"
        yield attention("api_processes", WARNING, sentence, installed_command("mistral-api doctor"), page)


def sorted_attention(statuses: Iterable[ModelServerStatus | None], *others: Iterable[Attention]) -> list[Attention]:
    """Return all items in the order of their urgency; ``statuses`` are those of our own model servers."""
    items = [item for each in others for item in each]
    for status in statuses:
        if status is not None and status.state is not State.STOPPED:
            items += attention_to_settings(status)
    return most_urgent_first(items)
