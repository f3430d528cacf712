"""``python -m mistral_api.registration.windows_host NAME``: run the process of one service as a Windows service.

Only the Service Control Manager starts this. Our process has the main thread, since Python delivers signals there;
pywin32's dispatcher, which talks to the manager, has another. The manager's stop becomes the SIGTERM that our processes
stop by in order. Run under Wine, not yet on Windows: see docs/windows.md.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("The Service Control Manager is Windows'.")

import _thread
import contextlib
import importlib
import io
import logging
import os
import signal
import threading

import servicemanager
import win32service
import win32serviceutil

from mistral_api.registration.service import PROJECT, SERVICES, Service
from mistral_api.settings import SettingError, load_settings
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.logs import configure_server_log

POLL_SECONDS = 0.5
# How long the manager is asked to wait; it begins anew with every poll.
WAIT_HINT_MS = 30_000
DISPATCHER_TIMEOUT_SECONDS = 30.0

_running = threading.Event()
_stop_requested = threading.Event()
_ended = threading.Event()


class _Host(win32serviceutil.ServiceFramework):
    """The class that pywin32 calls on its own threads; ``main`` sets the names that its constructor needs."""

    _svc_name_: str
    _svc_display_name_: str

    def SvcDoRun(self) -> None:  # noqa: N802 - pywin32's name
        """Return when our process has ended. Pass a request to stop on once, as soon as it handles SIGTERM."""
        self.ReportServiceStatus(win32service.SERVICE_RUNNING)
        _running.set()
        passed_on = False
        while not _ended.wait(POLL_SECONDS):
            if _stop_requested.is_set():
                self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, WAIT_HINT_MS)
                if not passed_on and callable(signal.getsignal(signal.SIGTERM)):
                    _thread.interrupt_main(signal.SIGTERM)
                    passed_on = True

    def SvcStop(self) -> None:  # noqa: N802 - pywin32's name
        """Handle the manager's control to stop."""
        self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, WAIT_HINT_MS)
        _stop_requested.set()

    SvcShutdown = SvcStop


def main() -> int:
    """Run the service that the command line names until it ends or is to stop; return an ExitCode."""
    service = next(each for each in SERVICES if each.name == sys.argv[1])
    os.chdir(PROJECT)
    _Host._svc_name_, _Host._svc_display_name_ = service.name, service.title
    servicemanager.Initialize()
    servicemanager.PrepareToHostSingle(_Host)
    dispatcher = threading.Thread(target=servicemanager.StartServiceCtrlDispatcher, name="dispatcher", daemon=True)
    dispatcher.start()
    if not _running.wait(DISPATCHER_TIMEOUT_SECONDS):
        return ExitCode.FAILED  # not started by the manager
    code = _run(service)
    if code not in (ExitCode.OK, *service.final):
        logging.shutdown()  # what waits is written
        os._exit(code)  # without a report to the manager, which counts that as a failure and restarts us
    _ended.set()
    dispatcher.join(DISPATCHER_TIMEOUT_SECONDS)
    return code


def _run(service: Service) -> int:
    try:
        settings = load_settings()
        configure_server_log(settings.log_options, service.log_name, console=False)  # a service has no terminal
        with contextlib.redirect_stdout(_LogLines()), contextlib.redirect_stderr(_LogLines()):
            code: int = importlib.import_module(f"{service.module}.__main__").main(list(service.arguments))
    except SettingError as error:
        servicemanager.LogErrorMsg(f"{service.title}: {error}")
        return ExitCode.CANNOT_START
    except Exception as error:  # nobody above reports it
        logging.getLogger(service.name).exception("ended by an error")
        servicemanager.LogErrorMsg(f"{service.title}: {error}")
        return ExitCode.FAILED
    if code != ExitCode.OK:
        servicemanager.LogErrorMsg(f"{service.title} ended with exit code {code}; see {settings.data_dir / 'logs'}")
    return code


class _LogLines(io.TextIOBase):
    """A stream that logs what is printed to it."""

    def write(self, text: str) -> int:
        """Log every line that is not empty."""
        for line in text.splitlines():
            if line.strip():
                logging.getLogger("printed").info("%s", line)
        return len(text)


if __name__ == "__main__":
    sys.exit(main())
