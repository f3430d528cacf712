"""``supervisor status``: the status files, shown to people and programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from mistral_api.control.attention import attention_line, attention_to_settings, most_urgent_first
from mistral_api.control.rpc_workers import worker_from_fields
from mistral_api.control.server_spec import MAIN_SERVER, server_specs
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
MAX_SHOWN_RESTARTS = 5


def show_status(settings: Settings, *, as_json: bool) -> int:
    """Print the status of the first model server, and of a secondary one with it. Return the first one's exit code."""
    first, *others = [spec.name for spec in server_specs(settings)] or [MAIN_SERVER]
    status = read_status(settings.data_dir, first)
    if status is None:
        print("null" if as_json else f"no supervisor has run on '{settings.data_dir}'")
        return Code.STOPPED
    secondary = {name: read_status(settings.data_dir, name) for name in others}
    print(_to_json(status, secondary) if as_json else "\n".join(_to_lines(status, secondary)))
    return EXIT_CODES[status.state]


def _to_json(status: ModelServerStatus, secondary: Mapping[str, ModelServerStatus | None]) -> str:
    """Return the first server's fields; a secondary server's object stands among them under the server's name."""
    fields = dataclasses.asdict(status)
    for name, other in secondary.items():
        fields[name.replace("-", "_")] = dataclasses.asdict(other) if other else None
    return json.dumps(fields, indent=1)


def _to_lines(status: ModelServerStatus, secondary: Mapping[str, ModelServerStatus | None]) -> list[str]:
    lines = _server_lines(status)
    for name, other in secondary.items():
        lines += ["", f"{name.replace('-', ' ')}:", *(_server_lines(other) if other else ["has not run"])]
    return lines


def _server_lines(status: ModelServerStatus) -> list[str]:
    pid = f", pid {status.pid}" if status.pid else ""
    lines = [
        f"{status.state} since {_format_time(status.since)}{pid}",
        f"model    {status.model} on {status.url}",
        f"file     {status.model_path}{_describe_model(status)}",
        f"engine   {status.engine} {status.engine_version or ''}".rstrip(),
        *_placement_lines(status),
        f"settings {_describe_settings(status)}",
        *(f"warning  {attention_line(item)}" for item in most_urgent_first(attention_to_settings(status))),
    ]
    if status.prompt_cache_mib is not None:
        lines.append(f"prompts  {status.prompt_cache_mib} MiB of main memory at most (PROMPT_CACHE_MIB)")
    lines += [f"worker   {worker_from_fields(fields).describe()}" for fields in status.rpc_workers]
    lines.append(f"restarts {status.restarts}")
    lines += [f"  {_format_time(each.at)} {each.reason}" for each in status.last_restarts[-MAX_SHOWN_RESTARTS:]]
    if status.last_error:
        lines.append(f"last error: {status.last_error}")
        lines += [f"  | {line}" for line in status.last_lines]
    return [*lines, f"log      {status.log_path}"]


def _placement_lines(status: ModelServerStatus) -> list[str]:
    """Return what the server has said of its load."""
    if status.placement is None:
        return []
    return [f"computes {status.placement.describe_devices()}", f"has      {status.placement.describe_context()}"]


def _describe_model(status: ModelServerStatus) -> str:
    known = [
        status.architecture,
        f"{status.parameters / 1e9:.2f} B parameters" if status.parameters else None,
        status.quantization,
        f"made for {status.model_context} tokens" if status.model_context else None,
    ]
    text = ", ".join(each for each in known if each)
    return f" ({text})" if text else ""


def _describe_settings(status: ModelServerStatus) -> str:
    """Return the settings of the start, and the layers on cards where they are others than those that were set."""
    context, layers, offloaded = status.context_size or "the model's own", status.gpu_layers, status.offloaded_layers
    if offloaded is not None and str(offloaded) != layers:
        layers = f"{offloaded} (set: {layers})"
    return (
        f"GPU layers {layers}, context {context}, KV cache {status.cache_type or 'default'}, "
        f"batch {status.batch_size}, threads {status.threads}, slots {status.parallel}"
    )


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
