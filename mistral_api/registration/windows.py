"""Registration with Windows' Service Control Manager. Run under Wine, not yet on Windows: see docs/windows.md.

The services run as LocalService, which has no rights but those of any user: not as the system. The functions are those
of winsvc.h, by pywin32.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("The Service Control Manager is Windows'.")

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pywintypes
import win32service

from mistral_api.registration.service import API, PROJECT, SERVICES, RegistrationError, Service, ServiceState
from mistral_api.settings import SettingError, load_settings
from mistral_api.system.exit_codes import ServiceExitCode
from mistral_api.system.files import make_data_dir
from mistral_api.system.processes import run_command

if TYPE_CHECKING:
    from _win32typing import PySC_HANDLE as Handle

ACCOUNT = r"NT AUTHORITY\LocalService"
LOCAL_SERVICE_SID = "*S-1-5-19"
ICACLS_TIMEOUT_SECONDS = 60.0
# Restarted after so many milliseconds, the last as often as need be; an hour without a failure begins anew.
RESTART_MS = (2_000, 10_000, 60_000)
RESET_SECONDS = 3600
# winerror.h
ACCESS_DENIED, DOES_NOT_EXIST, CANNOT_ACCEPT, NOT_ACTIVE, ALREADY_RUNNING = 5, 1060, 1061, 1062, 1056
# A service that is still starting takes no control: the stop is tried again for so long.
START_TIMEOUT_SECONDS, RETRY_SECONDS = 60.0, 0.5
_STATES = {
    win32service.SERVICE_RUNNING: "running",
    win32service.SERVICE_START_PENDING: "starting",
    win32service.SERVICE_STOP_PENDING: "stopping",
    win32service.SERVICE_STOPPED: "stopped",
}


class WindowsRegistration:
    """The two services. Every failure is a RegistrationError."""

    def __init__(self, *, user: bool | None, account: str | None) -> None:
        if user is not None or account is not None:
            raise RegistrationError(f"--user, --system and --account are for Linux; here services run as {ACCOUNT}.")

    def texts(self) -> dict[Path, str]:
        """Return what an installation would register, by service."""
        _, services = _data_dir_and_services()
        return {Path(each.name): f"{_command(each)}\nas {ACCOUNT}\n" for each in services}

    def install(self, *, now: bool) -> list[str]:
        """Register both, or bring them up to date, and start them with ``now``; return lines for the operator."""
        _require_readable()
        data_dir, services = _data_dir_and_services()
        with _manager(win32service.SC_MANAGER_CREATE_SERVICE) as manager:
            _grant(data_dir)
            for each in SERVICES:
                if each in services:
                    _register(manager, each)
                else:
                    _remove(manager, each)
            if now:
                for each in services:
                    _start(manager, each)
        return [*(f"registered: {each.name}" for each in services), "They start with Windows, a little after it."]

    def uninstall(self) -> list[str]:
        """Stop and remove both; the data stay. Return lines for the operator."""
        with _manager(win32service.SC_MANAGER_CONNECT) as manager:
            removed = [each.name for each in reversed(SERVICES) if _remove(manager, each)]
        if not removed:
            raise RegistrationError("No service of ours is installed.")
        return [*(f"removed: {name}" for name in removed), "The data stay where they are."]

    def states(self) -> list[ServiceState]:
        """Return the state of each service."""
        with _manager(win32service.SC_MANAGER_CONNECT) as manager:
            return [_state(manager, each) for each in SERVICES]


def _data_dir_and_services() -> tuple[Path, tuple[Service, ...]]:
    """Return DATA_DIR as a service will have it, and the services: no supervisor without a model server of ours."""
    try:
        with contextlib.chdir(PROJECT):
            settings = load_settings()
    except SettingError as error:
        raise RegistrationError(str(error)) from error
    return settings.data_dir, SERVICES if settings.supervises_any else (API,)


def _require_readable() -> None:
    """Refuse what lies in a user's profile, which is closed to LocalService."""
    profiles = Path(os.environ.get("PUBLIC", r"C:\Users\Public")).parent
    for name, folder in (("The project", PROJECT), ("Python", Path(sys.base_prefix))):
        if folder.is_relative_to(profiles):
            raise RegistrationError(
                f"{name} lies in '{folder}', where {ACCOUNT} cannot read: it must be outside of '{profiles}'."
            )


def _grant(data_dir: Path) -> None:
    """Let the account write DATA_DIR and what will be in it (icacls: OI and CI hand the right down, M is modify)."""
    try:
        make_data_dir(data_dir)
    except OSError as error:
        raise RegistrationError(f"DATA_DIR: '{data_dir}' cannot be made: {error.strerror}.") from error
    icacls = Path(os.environ["SYSTEMROOT"], "System32", "icacls.exe")
    command = [str(icacls), str(data_dir), "/grant", f"{LOCAL_SERVICE_SID}:(OI)(CI)M"]
    try:
        done = run_command(command, ICACLS_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistrationError(f"DATA_DIR: {ACCOUNT} cannot be let into '{data_dir}': {error}") from error
    if done.returncode != 0:
        raise RegistrationError(f"DATA_DIR: {ACCOUNT} cannot be let into '{data_dir}': {done.stderr.strip()}")


def _command(service: Service) -> str:
    """Return the command of a service: our host in the environment's Python.

    pywin32's own host, pythonservice.exe, knows no environments.
    """
    return f'"{sys.executable}" -m mistral_api.registration.windows_host {service.name}'


@contextlib.contextmanager
def _manager(access: int) -> Iterator[Handle]:
    """Open the Service Control Manager; its errors become sentences.

    pywin32 closes this handle, and that of a service, when nothing refers to it any more.
    """
    try:
        yield win32service.OpenSCManager(None, None, access | win32service.SC_MANAGER_CONNECT)
    except pywintypes.error as error:
        advice = " Run this as an administrator." if error.winerror == ACCESS_DENIED else ""
        raise RegistrationError(f"The Service Control Manager refuses: {error.strerror}{advice}") from error


def _open(manager: Handle, service: Service, access: int) -> Handle | None:
    """Open one service; None where it is not registered."""
    try:
        return win32service.OpenService(manager, service.name, access)
    except pywintypes.error as error:
        if error.winerror != DOES_NOT_EXIST:
            raise
        return None


def _register(manager: Handle, service: Service) -> None:
    """Create the service, or change one that is there. One that cannot be set up in full is not left behind."""
    kind, start = win32service.SERVICE_WIN32_OWN_PROCESS, win32service.SERVICE_AUTO_START
    configuration = (kind, start, win32service.SERVICE_ERROR_NORMAL, _command(service), None, False, None, ACCOUNT, "")
    access = win32service.SERVICE_ALL_ACCESS
    handle = _open(manager, service, access)
    if handle is not None:
        win32service.ChangeServiceConfig(handle, *configuration, service.title)
        _configure(handle)
        return
    handle = win32service.CreateService(manager, service.name, service.title, access, *configuration)
    try:
        _configure(handle)
    except BaseException:
        win32service.DeleteService(handle)  # one that is half set up must not start with Windows
        raise


def _configure(handle: Handle) -> None:
    """Say how a service is started and restarted."""
    actions = [(win32service.SC_ACTION_RESTART, milliseconds) for milliseconds in RESTART_MS]
    failure_actions = {"ResetPeriod": RESET_SECONDS, "RebootMsg": "", "Command": "", "Actions": actions}
    change = win32service.ChangeServiceConfig2
    change(handle, win32service.SERVICE_CONFIG_DESCRIPTION, f"Runs in {PROJECT}")
    change(handle, win32service.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, True)
    change(handle, win32service.SERVICE_CONFIG_FAILURE_ACTIONS, failure_actions)


def _start(manager: Handle, service: Service) -> None:
    handle = win32service.OpenService(manager, service.name, win32service.SERVICE_START)
    try:
        win32service.StartService(handle, None)
    except pywintypes.error as error:
        if error.winerror != ALREADY_RUNNING:
            raise


def _remove(manager: Handle, service: Service) -> bool:
    """Remove a service; return whether there was one. It is gone once it has stopped, which it does in its own time."""
    handle = _open(manager, service, win32service.SERVICE_ALL_ACCESS)
    if handle is None:
        return False
    _stop(handle)
    win32service.DeleteService(handle)
    return True


def _stop(handle: Handle) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while win32service.QueryServiceStatus(handle)[1] != win32service.SERVICE_STOP_PENDING:
        try:
            win32service.ControlService(handle, win32service.SERVICE_CONTROL_STOP)
            return
        except pywintypes.error as error:
            if error.winerror == NOT_ACTIVE:
                return
            if error.winerror != CANNOT_ACCEPT or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _state(manager: Handle, service: Service) -> ServiceState:
    handle = _open(manager, service, win32service.SERVICE_QUERY_STATUS)
    if handle is None:
        return ServiceState(service.name, "not installed", ServiceExitCode.UNKNOWN)
    state = win32service.QueryServiceStatus(handle)[1]
    running = state == win32service.SERVICE_RUNNING
    code = ServiceExitCode.RUNNING if running else ServiceExitCode.NOT_RUNNING
    return ServiceState(service.name, _STATES.get(state, str(state)), code)
