"""``supervisor status``: the status file for people and programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from mistral_api.control.server_spec import MAIN, served_models
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.settings import Settings
from mistral_api.system.exit_codes import ModelServerExitCode as Code

EXIT_CODES = {
    State.READY: Code.READY,
    State.STOPPED: Code.STOPPED,
    State.STOPPING: Code.STOPPED,
    State.FATAL: Code.FATAL,
    State.STARTING: Code.STARTING,
    State.LOADING: Code.STARTING,
    State.BACKOFF: Code.STARTING,
    State.UNRESPONSIVE: Code.UNRESPONSIVE,
}
SHOWN_RESTARTS = 5


def show_status(settings: Settings, *, as_json: bool) -> int:
    """Print how the model server is; the exit code says it too. Another one of ours is shown beside it."""
    first, *others = [each.server for each in served_models(settings)] or [MAIN]
    status = read_status(settings.data_dir, first)
    if status is None:
        print("null" if as_json else f"no supervisor has run on '{settings.data_dir}'")
        return Code.STOPPED
    beside = {each: read_status(settings.data_dir, each) for each in others}
    print(_as_json(status, beside) if as_json else "\n".join(_all_lines(status, beside)))
    return EXIT_CODES[status.state]


def _as_json(status: ModelServerStatus, beside: Mapping[str, ModelServerStatus | None]) -> str:
    fields = dataclasses.asdict(status)
    for server, other in beside.items():
        fields[server.replace("-", "_")] = dataclasses.asdict(other) if other else None
    return json.dumps(fields, indent=1)


def _all_lines(status: ModelServerStatus, beside: Mapping[str, ModelServerStatus | None]) -> list[str]:
    lines = _lines(status)
    for server, other in beside.items():
        lines += ["", f"{server.replace('-', ' ')}:", *(_lines(other) if other else ["has not run"])]
    return lines


def _lines(status: ModelServerStatus) -> list[str]:
    pid = f", pid {status.pid}" if status.pid else ""
    lines = [
        f"{status.state} since {_moment(status.since)}{pid}",
        f"model    {status.model} on {status.url}",
        f"file     {status.model_path}{_description(status)}",
        f"engine   {status.engine} {status.engine_version or ''}".rstrip(),
        f"settings {_settings(status)}",
    ]
    if status.memory_step:
        lines.append(f"memory   {status.memory_step}; `supervisor --retry-gpu` tries again")
    lines.append(f"restarts {status.restarts}")
    lines += [f"  {_moment(each.at)} {each.reason}" for each in status.last_restarts[-SHOWN_RESTARTS:]]
    if status.last_error:
        lines.append(f"last error: {status.last_error}")
        lines += [f"  | {line}" for line in status.last_lines]
    return [*lines, f"log      {status.log_path}"]


def _description(status: ModelServerStatus) -> str:
    known = [
        status.architecture,
        f"{status.parameters / 1e9:.2f} B parameters" if status.parameters else None,
        status.quantization,
        f"made for {status.model_context} tokens" if status.model_context else None,
    ]
    said = ", ".join(each for each in known if each)
    return f" ({said})" if said else ""


def _settings(status: ModelServerStatus) -> str:
    context = status.context_size or "the model's own"
    return (
        f"GPU layers {status.gpu_layers}, context {context}, KV cache {status.cache_type or 'default'}, "
        f"batch {status.batch_size}, threads {status.threads}, slots {status.parallel}"
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
