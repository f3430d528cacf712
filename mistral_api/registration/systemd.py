"""Registration with systemd: units of a user or of the system, written here and handled by ``systemctl``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from pwd import struct_passwd

from mistral_api.embedded.postgres.account import ACCOUNT_NAME
from mistral_api.registration.environment import (
    InstallEnvironment,
    can_become,
    device_groups,
    make_data_dir_for,
    make_system_account,
    own_account,
    rehearse_environment,
    system_account,
)
from mistral_api.registration.service import API, PROJECT, SERVICES, RegistrationError, Service, ServiceState
from mistral_api.registration.unit_files import SystemAccount, UnitFiles, data_of, file_name, unit_text
from mistral_api.system.exit_codes import ServiceExitCode
from mistral_api.system.files import is_root
from mistral_api.system.processes import error_lines, run_command

# To restart both units, one after the other, takes TimeoutStopSec and TimeoutStartSec of each at most.
SYSTEMCTL_SECONDS = 600.0
PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "StatusText", "NRestarts")
SYSTEM_FOLDER = Path("/etc/systemd/system")
LINGERING = Path("/var/lib/systemd/linger")


class SystemdRegistration:
    """The units of one scope. Every failure is a RegistrationError."""

    def __init__(
        self, *, user: bool | None, account: str | None, folder: Path | None = None, project: Path = PROJECT
    ) -> None:
        """Of a user, or of the system, which is root's default; ``folder`` holds the units.

        ``account`` runs the units of the system, by default one of our own; a user's units run as that user.
        """
        self._user = not is_root() if user is None else user
        if self._user and account:
            raise RegistrationError("--account is for units of the system; a user's own run as that user.")
        self._account_name = account or ACCOUNT_NAME
        self._project = project
        self._command = ("systemctl", "--user") if self._user else ("systemctl",)
        self._files = UnitFiles(folder or (_user_folder() if self._user else SYSTEM_FOLDER), project)

    def texts(self) -> dict[Path, str]:
        """Return what an installation would write, by file.

        This process's own account stands in for one that it cannot become: then DATA_DIR is not checked.
        """
        stand_in = not self._user and not can_become(self._account_name)
        account = own_account() if self._user or stand_in else system_account(self._account_name)
        return self._texts(rehearse_environment(self._project, account, check_data_dir=not stand_in))

    def install(self, *, now: bool) -> list[str]:
        """Write and enable the units, and (re)start them with ``now``; return lines for the operator.

        A failure changes nothing. Only the account, without which a start cannot be rehearsed, and DATA_DIR may be
        there then.
        """
        self._require_right()
        if not self._systemd_runs():
            raise RegistrationError("No systemd runs here that could be asked; --print shows what would be written.")
        account = own_account() if self._user else make_system_account(self._account_name)
        environment = rehearse_environment(self._project, account)
        texts = self._texts(environment)
        self._files.require_free(texts)
        make_data_dir_for(account, environment.data_dir)
        self._enable(texts)
        if now:
            self._restart(texts)
        return [*(f"written and enabled: {path}" for path in texts), *self._hints(texts, account, now=now)]

    def uninstall(self) -> list[str]:
        """Stop and disable the units and remove their files; the data stay. Return lines for the operator."""
        self._require_right()
        installed = self._files.installed()
        if not installed:
            raise RegistrationError(f"No unit of ours is installed in '{self._files.folder}'.")
        systemd_runs = self._systemd_runs()
        self._systemctl("disable", *(["--now"] if systemd_runs else []), *(path.name for path in installed))
        self._files.remove(installed)
        if systemd_runs:
            self._systemctl("daemon-reload")
        folders = sorted({data_of(text) for text in installed.values()})
        return [*(f"removed: {path}" for path in installed), *(f"The data stay in {folder}" for folder in folders)]

    def states(self) -> list[ServiceState]:
        """Return the state of every unit. Without a running systemd only the files are known."""
        systemd_runs = self._systemd_runs()
        return [self._state(service) if systemd_runs else self._state_by_file(service) for service in SERVICES]

    def _require_right(self) -> None:
        if not self._user and not is_root():
            raise RegistrationError("Units of the system are root's to install: use sudo, or --user.")

    def _texts(self, environment: InstallEnvironment) -> dict[Path, str]:
        """Return the units by file; there is none of the supervisor where it would have nothing to supervise."""
        account = None if self._user else SystemAccount(self._account_name, device_groups())
        services = SERVICES if environment.supervised else (API,)
        return {self._files.folder / file_name(each): unit_text(each, environment, account) for each in services}

    def _enable(self, texts: Mapping[Path, str]) -> None:
        """Write and enable units, all or none, and then remove those that are not needed any more."""
        before = self._files.existing()
        surplus = [path for path in self._files.installed() if path not in texts]
        try:
            self._files.write(texts)
            self._systemctl("daemon-reload")
            self._systemctl("enable", *(path.name for path in texts))
        except RegistrationError as error:
            self._restore(texts, before, error)
            raise
        if surplus:
            self._systemctl("disable", "--now", *(path.name for path in surplus))
            self._files.remove(surplus)
            self._systemctl("daemon-reload")

    def _restore(self, texts: Mapping[Path, str], before: Mapping[Path, str], reason: RegistrationError) -> None:
        """Undo a failed :meth:`_enable`. Raises RegistrationError with both reasons where that fails too."""
        new = [path for path in texts if path not in before and path.exists()]
        try:
            try:
                if new:
                    self._systemctl("disable", *(path.name for path in new))  # needs their files
            finally:
                self._files.remove(new)
                self._files.write({path: before[path] for path in texts if path in before})
                self._systemctl("daemon-reload")
        except RegistrationError as another:
            raise RegistrationError(f"{reason}; to take it back failed too: {another}") from reason

    def _restart(self, texts: Mapping[Path, str]) -> None:
        """Start the units; one that runs already would otherwise go on with its former settings."""
        try:
            self._systemctl("restart", *(path.name for path in texts))
        except RegistrationError as error:
            raise RegistrationError(f"The units are installed and enabled, but do not start: {error}") from error

    def _hints(self, texts: Mapping[Path, str], account: struct_passwd, *, now: bool) -> Iterator[str]:
        if not now:
            yield (
                "They start with the system, and those that run go on as they were; "
                f"at once: {' '.join(self._command)} restart {' '.join(path.stem for path in texts)}"
            )
        if self._user and not (LINGERING / account.pw_name).exists():
            yield "They end when you log out, unless you run once: loginctl enable-linger"
        dotenv = self._project / ".env"
        if dotenv.exists() and dotenv.stat().st_mode & 0o004:
            # The service itself must still be able to read it.
            advice = f"chgrp {account.pw_gid} {dotenv} && chmod 640 {dotenv}"
            advice = f"chmod 600 {dotenv}" if self._user else advice
            yield f"Every account can read {dotenv}; if it holds a password: {advice}"

    def _state_by_file(self, service: Service) -> ServiceState:
        name = file_name(service)
        found = "written" if self._files.folder / name in self._files.installed() else "not installed"
        separator = ", but" if found == "written" else ", and"
        return ServiceState(name, "unknown", ServiceExitCode.UNKNOWN, f"{found}{separator} no systemd runs here")

    def _state(self, service: Service) -> ServiceState:
        """Return the state as systemd reports it.

        A supervisor is not missed where only the API was installed, since somebody else runs the model server.
        """
        name = file_name(service)
        properties = self._properties(name)
        if properties.get("LoadState") == "not-found":
            api_alone = service is not API and self._files.folder / file_name(API) in self._files.installed()
            code = ServiceExitCode.RUNNING if api_alone else ServiceExitCode.UNKNOWN
            return ServiceState(name, "not installed", code)
        state = properties.get("ActiveState", "unknown")
        code = ServiceExitCode.RUNNING if state == "active" else ServiceExitCode.NOT_RUNNING
        return ServiceState(name, state, code, _detail(properties))

    def _properties(self, unit: str) -> dict[str, str]:
        done = self._run("show", f"--property={','.join(PROPERTIES)}", unit)
        if done.returncode != 0:
            raise RegistrationError(f"systemd does not say how '{unit}' is: {done.stderr.strip()}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def _systemd_runs(self) -> bool:
        """Whether a systemd runs. Without the program there is none."""
        if shutil.which("systemctl") is None:
            return False
        return self._run("is-system-running").stdout.strip() not in ("offline", "unknown", "")

    def _systemctl(self, *arguments: str) -> None:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise RegistrationError(f"'{' '.join((*self._command, *arguments))}' failed: {error_lines(done)[-1]}")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = (*self._command, *arguments)
        try:
            return run_command(command, SYSTEMCTL_SECONDS)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        except subprocess.TimeoutExpired as error:
            raise RegistrationError(f"'{' '.join(command)}' did not end in {SYSTEMCTL_SECONDS:.0f} s.") from error


def _user_folder() -> Path:
    """Return the folder of a user's own units (systemd.unit(5), "Unit File Load Path")."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _detail(properties: Mapping[str, str]) -> str:
    """Return the details that systemd reports of a unit, in one line."""
    parts = [properties.get("SubState", ""), properties.get("UnitFileState", "")]
    if properties.get("MainPID", "0") != "0":
        parts.append(f"pid {properties['MainPID']}")
    if properties.get("NRestarts", "0") != "0":
        parts.append(f"{properties['NRestarts']} restarts")
    if properties.get("Result", "success") != "success":
        parts.append(f"last result: {properties['Result']}")
    return ", ".join(part for part in (*parts, properties.get("StatusText", "")) if part)
