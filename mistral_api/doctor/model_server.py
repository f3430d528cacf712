"""The check of the model server as it is now: ours by its status file, another's by asking it."""

from __future__ import annotations

from collections.abc import Iterator

import urllib3

from mistral_api.control.server_spec import server_specs
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.settings import Settings
from mistral_api.system.command_names import project_command

ANSWER_SECONDS = 3.0
_STARTING = (State.STARTING, State.LOADING, State.BACKOFF, State.STOPPING)


def check_model_server(settings: Settings) -> Iterator[Finding]:
    """Say how each model server is."""
    if not settings.supervised:
        yield _ask(settings)
    for spec in server_specs(settings):
        yield _supervised(spec.name.replace("-", " "), read_status(settings.data_dir, spec.name))


def _supervised(subject: str, status: ModelServerStatus | None) -> Finding:
    if status is None or status.state is State.STOPPED:
        return ok(subject, f"does not run now; {project_command('serve')} starts it")
    if status.state is State.READY:
        return ok(subject, f"ready on {status.url}, pid {status.pid}, {status.restarts} restarts")
    text = f"{status.state}: {status.last_error}" if status.last_error else str(status.state)
    if status.state in _STARTING:
        return warning(subject, text, f"{project_command('supervisor')} status")
    return failure(subject, text, f"its log says why: {status.log_path}")


def _ask(settings: Settings) -> Finding:
    """Ask a server that somebody else runs for its models, as every server of OpenAI's API lists them."""
    url = f"{settings.model_server_base_url}/v1/models"
    headers = {"Authorization": f"Bearer {settings.model_server_api_key}"} if settings.model_server_api_key else {}
    subject, mend = "model server", "start it, or mend MODEL_SERVER_URL and MODEL_SERVER_API_KEY"
    try:
        with urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False) as pool:
            answer = pool.request("GET", url, headers=headers, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        return failure(subject, f"{url} does not answer: {_cause(error)}", mend)
    if answer.status != 200:
        return failure(subject, f"{url} answers with status {answer.status}", mend)
    return ok(subject, f"{settings.model_server_base_url} answers")


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    reason = getattr(error, "reason", None) or error.__cause__ or error
    return getattr(reason, "strerror", None) or type(reason).__name__
