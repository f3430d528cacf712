"""The services of Windows, and ``waitress-serve`` beside ``bin\\supervisor``."""

from __future__ import annotations

import time
from typing import Any

import requests

from tests.support.processes import free_port
from tests.windows.base_checks import COMMAND_SECONDS, COMMANDS
from tests.windows.checks import CheckError, Step
from tests.windows.installation import Installation
from tests.windows.stack_checks import (
    READY_SECONDS,
    STOP_SECONDS,
    chat,
    require_no_traceback,
    require_nothing_left,
    stream,
    wait_until,
)
from tests.windows.wine import WineProcess, tail

SESSION = "windows-services"
DATA_FOLDER = "ServiceData"
DATA_DIR = rf"C:\{DATA_FOLDER}"
RUNNING, UNKNOWN = 0, 4


class ServiceChecks:
    """The services; then, on the same data, a supervisor and a WSGI server as two processes of a user."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._port, self._model_port = free_port(), free_port()
        self._api: WineProcess | None = None
        self._supervisor: WineProcess | None = None

    def steps(self) -> list[Step]:
        """Return the steps; each needs those before it."""
        return [
            Step("services are installed and started", self._install),
            Step("a chat and a stream of the services", self._ask),
            Step("services are uninstalled, and nothing is left", self._uninstall),
            Step(r"bin\supervisor and waitress-serve get ready", self._start_processes),
            Step("a chat and a stream of waitress-serve", self._ask),
            Step("both end", self._stop_processes),
        ]

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self._port}"

    def _settings(self) -> dict[str, str]:
        return {
            "API_PORT": str(self._port),
            "MODEL_SERVER_PORT": str(self._model_port),
            "DATA_DIR": DATA_DIR,
            "CONTEXT_SIZE": "2048",
        }

    def _install(self) -> str:
        """A service has no environment of a user's: its settings stand in .env."""
        lines = [f"{name}={value}" for name, value in self._settings().items()]
        self._installation.mend_service_manager()
        self._be_as_patient_as_windows()
        (self._installation.folder / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        output = self._service("install", "--now")
        self._wait_until_serving(None)
        status = self._service("status")
        if status.count("running") != 2:
            raise CheckError(f"the status is\n{tail(status)}")
        return output.strip().replace("\n", "; ")

    def _be_as_patient_as_windows(self) -> None:
        """Give a service 30 s until it reports to its manager, as Windows does; with Wine it has 10."""
        prefix = self._installation.prefix
        key = r"HKLM\System\CurrentControlSet\Control"
        setting = ["/v", "ServicesPipeTimeout", "/t", "REG_DWORD", "/d", "30000", "/f"]
        prefix.start(["reg", "add", key, *setting], prefix.drive).wait(COMMAND_SECONDS)
        prefix.end_everything()
        prefix.boot()

    def _service(self, *arguments: str, expected: int = RUNNING) -> str:
        process = self._installation.start("-c", COMMANDS, "service", *arguments)
        code = process.wait(COMMAND_SECONDS + STOP_SECONDS)
        require_no_traceback(process.output)
        if code != expected:
            raise CheckError(f"service {' '.join(arguments)} ended with {code}:\n{tail(process.output)}")
        return process.output

    def _wait_until_serving(self, process: WineProcess | None) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self._state() != "ok":
            if time.monotonic() > deadline or (process is not None and process.ended):
                raise CheckError(f"/health says '{self._state()}'; printed:\n{tail(self._printed(process))}")
            time.sleep(0.2)

    def _state(self) -> str:
        try:
            body: dict[str, Any] = requests.get(self.url + "/health/ready", timeout=5).json()
            return str(body["status"])
        except (requests.RequestException, ValueError, KeyError) as error:
            return type(error).__name__

    def _printed(self, process: WineProcess | None) -> str:
        if process is not None:
            return process.output
        logs = self._installation.prefix.drive / DATA_FOLDER / "logs"
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(logs.glob("*.log")))

    def _ask(self) -> str:
        return f"{chat(self.url, SESSION)}, {stream(self.url, SESSION)}"

    def _uninstall(self) -> str:
        output = self._service("uninstall")
        require_nothing_left(self._installation, STOP_SECONDS)
        self._service("status", expected=UNKNOWN)
        require_no_traceback(self._printed(None))
        (self._installation.folder / ".env").unlink()
        return output.strip().replace("\n", "; ")

    def _start_processes(self) -> str:
        settings = self._settings()
        self._supervisor = self._installation.start_script(
            r"tests\windows\console_user.py", r"bin\supervisor", **settings
        )
        listen = f"--listen=127.0.0.1:{self._port}"
        self._api = self._installation.start(
            r"tests\windows\console_user.py", "-m", "waitress", listen, "--threads=8", "wsgi:app", **settings
        )
        self._wait_until_serving(self._api)
        return "ready"

    def _stop_processes(self) -> str:
        codes = []
        for process in (self._api, self._supervisor):
            if process is None:
                raise CheckError("not started")
            process.say("")
            wait_until(lambda process=process: process.ended, STOP_SECONDS, process)  # type: ignore[misc]
            codes.append(process.wait(STOP_SECONDS))
            require_no_traceback(process.output)
        require_nothing_left(self._installation, STOP_SECONDS)
        return f"with {codes[0]} and {codes[1]}"
