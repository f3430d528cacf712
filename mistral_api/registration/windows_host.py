"""``python -m mistral_api.registration.windows_host NAME``: one of our processes as a Windows service.

Started by the Service Control Manager alone. Our process has the main thread, since Python delivers signals
there; pywin32's dispatcher, which talks to the manager, has another. The manager's stop becomes the SIGTERM
that our processes stop by in order. Not yet run on Windows.
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
import logging.handlers
import os
import signal
import threading
from pathlib import Path

import servicemanager
import win32service
import win32serviceutil

from mistral_api.registration.service import PROJECT, SERVICES, Service
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.system.files import make_data_dir

CANNOT_START = 2
LOOK_SECONDS = 0.5
# The manager is asked for this much patience at a time; it begins anew with every look.
WAIT_HINT_MS = 30_000
DISPATCHER_SECONDS = 30.0
LOG_BYTES, LOGS_KEPT = 10 << 20, 3

_running = threading.Event()
_stop_asked = threading.Event()
_ended = threading.Event()


class _Host(win32serviceutil.ServiceFramework):
    """What pywin32 calls, on its own threads; ``main`` gives it the names that its constructor needs."""

    _svc_name_: str
    _svc_display_name_: str

    def SvcDoRun(self) -> None:  # noqa: N802 - pywin32's name
        """Stay for as long as our process runs, and hand a request to stop on, once, when it can be heard."""
        self.ReportServiceStatus(win32service.SERVICE_RUNNING)
        _running.set()
        handed_on = False
        while not _ended.wait(LOOK_SECONDS):
            if _stop_asked.is_set():
                self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, WAIT_HINT_MS)
                if not handed_on and callable(signal.getsignal(signal.SIGTERM)):
                    _thread.interrupt_main(signal.SIGTERM)
                    handed_on = True

    def SvcStop(self) -> None:  # noqa: N802 - pywin32's name
        """The manager's stop control."""
        self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, WAIT_HINT_MS)
        _stop_asked.set()

    SvcShutdown = SvcStop


def main() -> int:
    """Run the service that is named on the command line until it ends or is to stop."""
    service = next(each for each in SERVICES if each.name == sys.argv[1])
    os.chdir(PROJECT)
    _Host._svc_name_, _Host._svc_display_name_ = service.name, service.title
    servicemanager.Initialize()
    servicemanager.PrepareToHostSingle(_Host)
    dispatcher = threading.Thread(target=servicemanager.StartServiceCtrlDispatcher, name="dispatcher", daemon=True)
    dispatcher.start()
    if not _running.wait(DISPATCHER_SECONDS):
        return 1  # not started by the manager
    code = _run(service)
    if code not in (0, *service.final):
        os._exit(code)  # without a word to the manager, which counts that as a failure and restarts us
    _ended.set()
    dispatcher.join(DISPATCHER_SECONDS)
    return code


def _run(service: Service) -> int:
    try:
        settings = load_settings()
        log = settings.data_dir / "logs" / f"{service.name}.log"
        _log_to(log, settings)
        with contextlib.redirect_stdout(_LogLines()), contextlib.redirect_stderr(_LogLines()):
            code: int = importlib.import_module(f"{service.module}.__main__").main(list(service.arguments))
    except SettingError as error:
        servicemanager.LogErrorMsg(f"{service.title}: {error}")
        return CANNOT_START
    except Exception as error:  # the last place where it can be said
        logging.getLogger(service.name).exception("ended by an error")
        servicemanager.LogErrorMsg(f"{service.title}: {error}")
        return 1
    if code != 0:
        servicemanager.LogErrorMsg(f"{service.title} ended with exit code {code}; see {log}")
    return code


def _log_to(path: Path, settings: Settings) -> None:
    """A service has no terminal: its log lines go to a file under DATA_DIR, rotated."""
    make_data_dir(settings.data_dir)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


class _LogLines(io.TextIOBase):
    """What is printed, as log lines."""

    def write(self, text: str) -> int:
        """Log what has been printed, but for empty lines."""
        for line in text.splitlines():
            if line.strip():
                logging.getLogger("printed").info("%s", line)
        return len(text)


if __name__ == "__main__":
    sys.exit(main())
