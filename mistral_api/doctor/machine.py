"""Checks of the machine: room on the disk, free ports, registered services."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import urllib3

from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.control.status import ModelServerStatus, read_status
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.errors import StartError
from mistral_api.registration.service import RegistrationError
from mistral_api.serving.web_server import bind_listener
from mistral_api.settings import Settings
from mistral_api.supervisor.preflight import NEEDED_DISK_BYTES, require_free_port
from mistral_api.system.addresses import url_of
from mistral_api.system.byte_sizes import GIB, MIB, format_size
from mistral_api.system.exit_codes import ServiceExitCode

if sys.platform == "win32":
    from mistral_api.registration.windows import WindowsRegistration as Registration
else:
    from mistral_api.registration.systemd import SystemdRegistration as Registration
from mistral_api.system.command_names import installed_command

ENOUGH_DISK_BYTES = GIB
ANSWER_SECONDS = 2.0
# What /health answers: with 503 no model server is there.
_ANSWERED = (200, 503)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Say how much room DATA_DIR has, and whether we may write there."""
    folder = _nearest_folder(settings.data_dir)
    free = shutil.disk_usage(folder).free
    text = f"{format_size(free)} free for '{settings.data_dir}'"
    if not os.access(folder, os.W_OK | os.X_OK):
        yield failure("disk", f"'{folder}' cannot be written by this account", "choose another DATA_DIR")
    elif free < NEEDED_DISK_BYTES:
        yield failure("disk", text, f"make at least {NEEDED_DISK_BYTES // MIB} MiB free")
    elif free < ENOUGH_DISK_BYTES:
        yield warning("disk", text, "make room: the journal and saved caches grow there")
    else:
        yield ok("disk", text)


def _nearest_folder(path: Path) -> Path:
    """Return the folder, or the nearest one above that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Say of each port of ours whether it is free, or used by our own server."""
    yield _api_port(settings)
    for spec in server_specs(settings):
        yield _model_port(spec, read_status(settings.data_dir, spec.name))


def _api_port(settings: Settings) -> Finding:
    address = f"API on {settings.api_host}:{settings.api_port}"
    try:
        with closing(bind_listener(settings.api_host, settings.api_port)):
            return ok("port", f"{address}: free; no API runs there")
    except StartError as error:
        cause = error.__cause__
        if getattr(cause, "errno", None) == errno.EADDRINUSE and _answers_as_ours(settings):
            return _processes(settings, f"{address}: our API answers there")
        return failure("port", str(error))


def _processes(settings: Settings, text: str) -> Finding:
    """Say whether all API processes serve, where the server says how many there are to be."""
    health = _answer(settings, "/health")
    processes = health.get("processes") if isinstance(health, dict) else None
    if not isinstance(processes, dict) or processes.get("configured") == 1:
        return ok("port", text)
    text += f", {processes.get('running')} of {processes.get('configured')} processes"
    if processes.get("status") == "ok":
        return ok("port", text)
    return warning("port", text, f"{processes.get('last_error') or 'one does not serve'}; the log says more")


def _answers_as_ours(settings: Settings) -> bool:
    return _answer(settings, "/health/live") == {"status": "ok"}


def _answer(settings: Settings, path: str) -> object:
    """Return the JSON that whoever listens on the API's port answers; None without any."""
    url = url_of(settings.api_host, settings.api_port) + path
    try:
        with urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False) as pool:
            answer = pool.request("GET", url, redirect=False)
            return answer.json() if answer.status in _ANSWERED else None
    except (urllib3.exceptions.HTTPError, ValueError):
        return None


def _model_port(spec: ServerSpec, status: ModelServerStatus | None) -> Finding:
    if status is not None and status.pid is not None:
        return ok("port", f"{spec.label} on {status.url}: our server has it")
    try:
        require_free_port(spec)
    except StartError as error:
        return failure("port", str(error))
    socket = spec.settings.model_server_socket
    address = socket or f"{spec.settings.model_server_host}:{spec.settings.model_server_port}"
    return ok("port", f"{spec.label} on {address}: free")


def check_services(_settings: Settings) -> Iterator[Finding]:
    """Say how the registered services are."""
    try:
        states = Registration(user=None, account=None).states()
    except RegistrationError as error:
        yield ok("services", f"none: {str(error).rstrip('.')}")
        return
    if all(state.code is ServiceExitCode.UNKNOWN for state in states):
        yield ok("services", f"not registered; {installed_command('mistral-api service install')} does that")
        return
    for state in states:
        text = f"{state.name}: {state.state}{f' ({state.detail})' if state.detail else ''}"
        if state.code is ServiceExitCode.RUNNING:
            yield ok("services", text)
        else:
            yield warning("services", text, installed_command("mistral-api service install --now"))
