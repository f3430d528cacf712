"""The check of the model server as it is now: ours by its status file, another's by asking it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from mistral_api.control.server_spec import server_specs
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.settings import Settings
from mistral_api.system.addresses import without_credentials
from mistral_api.system.command_names import project_command
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.external_probe import probe_external

_STARTING = (State.STARTING, State.LOADING, State.BACKOFF, State.STOPPING)


def check_model_server(settings: Settings) -> Iterator[Finding]:
    """Say how each model server is."""
    if settings.model_server_url is not None:
        yield _ask(settings, settings.model_server_url)
    for spec in server_specs(settings):
        yield _supervised(spec.name.replace("-", " "), read_status(settings.data_dir, spec.name))


def _supervised(subject: str, status: ModelServerStatus | None) -> Finding:
    if status is None or status.state is State.STOPPED:
        return ok(subject, f"does not run now; {project_command('serve')} starts it")
    if status.state is State.READY:
        context = "" if status.placement is None else f", {status.placement.describe_context()}"
        return ok(subject, f"ready on {status.url}, pid {status.pid}, {status.restarts} restarts{context}")
    text = f"{status.state}: {status.last_error}" if status.last_error else str(status.state)
    if status.state in _STARTING:
        return warning(subject, text, f"{project_command('supervisor')} status")
    return failure(subject, text, f"its log says why: {status.log_path}")


def _ask(settings: Settings, url: str) -> Finding:
    """Ask the server that somebody else runs, as the API would."""
    with (
        closing(DisconnectWatcher()) as watcher,
        closing(ModelServerClient(settings, lambda: None, lambda: False, watcher)) as client,
    ):
        probe = probe_external(client)
    shown = without_credentials(url)
    if probe.state == "ready":
        return ok("model server", f"{shown} answers")
    text = f"{shown}: {probe.cause}"
    if probe.state == "loading":
        return warning("model server", text)
    return failure("model server", text, "start it, or mend MODEL_SERVER_URL and MODEL_SERVER_API_KEY")
