"""Registration with systemd: units of a user or of the system, written here and handled by ``systemctl``."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("systemd is Linux'.")

import os
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from pwd import struct_passwd

from mistral_api.embedded.postgres.account import ACCOUNT_NAME
from mistral_api.registration.accounts import (
    can_become,
    make_data_dir_for,
    make_folders_for,
    own_account,
    system_account,
)
from mistral_api.registration.rehearsal import InstallEnvironment, rehearse_environment
from mistral_api.registration.service import API, PROJECT, SERVICES, RegistrationError, ServiceState
from mistral_api.registration.unit_files import UnitOrigin, origin_of, unit_text
from mistral_api.system.exit_codes import ServiceExitCode
from mistral_api.system.files import is_root, replace_file
from mistral_api.system.processes import error_lines, run_command

# To restart both units, one after the other, takes TimeoutStopSec and TimeoutStartSec of each at most.
SYSTEMCTL_TIMEOUT_SECONDS = 600.0
SYSTEM_FOLDER = Path("/etc/systemd/system")
LINGERING = Path("/var/lib/systemd/linger")
# What is shown of a unit beside its state, unless it is empty, 0 or "success".
DETAILS = {
    "SubState": "{}",
    "UnitFileState": "{}",
    "MainPID": "pid {}",
    "NRestarts": "{} restarts",
    "Result": "last result: {}",
    "StatusText": "{}",
}


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
        self._folder = folder or (_user_folder() if self._user else SYSTEM_FOLDER)
        self._paths = {service: self._folder / f"{service.name}.service" for service in SERVICES}

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
        account = own_account() if self._user else system_account(self._account_name, make=True)
        environment = rehearse_environment(self._project, account)
        texts = self._texts(environment)
        self._require_free(texts)
        make_data_dir_for(account, environment.data_dir)
        if not self._user:
            make_folders_for(account, environment.data_dir)
        self._enable(texts)
        surplus = [path for path in self._installed() if path not in texts]
        if surplus:
            self._remove(surplus)
        if now:
            self._restart(texts)
        return [*(f"written and enabled: {path}" for path in texts), *self._hints(texts, account, now=now)]

    def uninstall(self) -> list[str]:
        """Stop and disable the units and remove their files; the data stay. Return lines for the operator."""
        self._require_right()
        installed = self._installed()
        if not installed:
            raise RegistrationError(f"No unit of ours is installed in '{self._folder}'.")
        self._remove(installed, systemd_runs=self._systemd_runs())
        folders = sorted({origin.data_dir for origin in installed.values()})
        return [*(f"removed: {path}" for path in installed), *(f"The data stay in {folder}" for folder in folders)]

    def states(self) -> list[ServiceState]:
        """Return the state of every unit. Without a running systemd only the files are known."""
        state = self._state if self._systemd_runs() else self._state_by_file
        return [state(path) for path in self._paths.values()]

    def _require_right(self) -> None:
        if not self._user and not is_root():
            raise RegistrationError("Units of the system are root's to install: use sudo, or --user.")

    def _texts(self, environment: InstallEnvironment) -> dict[Path, str]:
        """Return the units by file; there is none of the supervisor where it would have nothing to supervise."""
        account = None if self._user else self._account_name
        services = SERVICES if environment.supervised else (API,)
        return {self._paths[service]: unit_text(service, environment, account) for service in services}

    def _existing(self) -> dict[Path, str]:
        """Return the text of every file that has the name of one of our units, whoever has written it."""
        try:
            return {path: path.read_text(encoding="utf-8") for path in self._paths.values() if path.exists()}
        except (OSError, ValueError) as error:
            raise RegistrationError(f"The units in '{self._folder}' cannot be read: {error}.") from error

    def _installed(self) -> dict[Path, UnitOrigin]:
        """Return the units that we have written for this project."""
        origins = {path: origin_of(text) for path, text in self._existing().items()}
        return {path: origin for path, origin in origins.items() if origin and self._is_ours(origin)}

    def _is_ours(self, origin: UnitOrigin) -> bool:
        """Whether a unit runs this project, or another copy of it that is gone: it may have been moved to here."""
        try:
            return origin.project == str(self._project) or not Path(origin.project).exists()
        except OSError:  # it cannot be looked at, so it may exist
            return False

    def _require_free(self, paths: Collection[Path]) -> None:
        """Refuse to replace a file that is not ours."""
        for path, text in self._existing().items():
            origin = origin_of(text)
            if path in paths and origin is None:
                raise RegistrationError(f"'{path}' was not written by this command; move it away first.")
            if path in paths and origin and not self._is_ours(origin):
                raise RegistrationError(f"'{path}' runs the project in '{origin.project}': uninstall it there first.")

    def _enable(self, texts: Mapping[Path, str]) -> None:
        """Write and enable units: all of them, or none."""
        before = self._existing()
        try:
            _write(texts)
            self._systemctl("daemon-reload")
            self._systemctl("enable", units=texts)
        except RegistrationError as error:
            try:
                self._restore(texts, before)
            except RegistrationError as another:
                raise RegistrationError(f"{error}; to take it back failed too: {another}") from error
            raise

    def _restore(self, texts: Mapping[Path, str], before: Mapping[Path, str]) -> None:
        """Undo what :meth:`_enable` has done before it failed."""
        new = [path for path in texts if path not in before and path.exists()]
        try:
            if new:
                self._systemctl("disable", units=new)  # needs their files
        finally:
            _write({path: before.get(path) for path in texts})
            self._systemctl("daemon-reload")

    def _remove(self, paths: Iterable[Path], *, systemd_runs: bool = True) -> None:
        """Stop and disable units, and remove their files."""
        self._systemctl("disable", *(["--now"] if systemd_runs else []), units=paths)
        _write(dict.fromkeys(paths))
        if systemd_runs:
            self._systemctl("daemon-reload")

    def _restart(self, paths: Iterable[Path]) -> None:
        """Start the units; one that runs already would otherwise go on with its former settings."""
        try:
            self._systemctl("restart", units=paths)
        except RegistrationError as error:
            raise RegistrationError(f"The units are installed and enabled, but do not start: {error}") from error

    def _hints(self, paths: Iterable[Path], account: struct_passwd, *, now: bool) -> Iterator[str]:
        if not now:
            yield (
                "They start with the system, and those that run go on as they were; "
                f"at once: {' '.join(self._command)} restart {' '.join(path.stem for path in paths)}"
            )
        if self._user and not (LINGERING / account.pw_name).exists():
            yield "They end when you log out, unless you run once: loginctl enable-linger"
        dotenv = self._project / ".env"
        if dotenv.exists() and dotenv.stat().st_mode & 0o004:
            # The service itself must still be able to read it.
            for_group = f"chgrp {account.pw_gid} {dotenv} && chmod 640 {dotenv}"
            advice = f"chmod 600 {dotenv}" if self._user else for_group
            yield f"Every account can read {dotenv}; if it holds a password: {advice}"

    def _state_by_file(self, path: Path) -> ServiceState:
        found = "written, but" if path in self._installed() else "not installed, and"
        return ServiceState(path.name, "unknown", ServiceExitCode.UNKNOWN, f"{found} no systemd runs here")

    def _state(self, path: Path) -> ServiceState:
        """Return the state as systemd reports it.

        A supervisor is not missed where only the API was installed, since somebody else runs the model server.
        """
        done = self._run("show", f"--property={','.join(('LoadState', 'ActiveState', *DETAILS))}", path.name)
        if done.returncode != 0:
            raise RegistrationError(f"systemd does not say how '{path.name}' is: {done.stderr.strip()}")
        properties = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        if properties.get("LoadState") == "not-found":
            api_alone = path != self._paths[API] and self._paths[API] in self._installed()
            code = ServiceExitCode.RUNNING if api_alone else ServiceExitCode.UNKNOWN
            return ServiceState(path.name, "not installed", code)
        state = properties.get("ActiveState", "unknown")
        code = ServiceExitCode.RUNNING if state == "active" else ServiceExitCode.NOT_RUNNING
        shown = {name: value for name, value in properties.items() if value not in ("", "0", "success")}
        detail = ", ".join(form.format(shown[name]) for name, form in DETAILS.items() if name in shown)
        return ServiceState(path.name, state, code, detail)

    def _systemd_runs(self) -> bool:
        """Whether a systemd runs. Without the program there is none."""
        if shutil.which("systemctl") is None:
            return False
        return self._run("is-system-running").stdout.strip() not in ("offline", "unknown", "")

    def _systemctl(self, *arguments: str, units: Iterable[Path] = ()) -> None:
        words = (*arguments, *(path.name for path in units))
        done = self._run(*words)
        if done.returncode != 0:
            raise RegistrationError(f"'{' '.join((*self._command, *words))}' failed: {error_lines(done)[-1]}")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = (*self._command, *arguments)
        try:
            return run_command(command, SYSTEMCTL_TIMEOUT_SECONDS)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        except subprocess.TimeoutExpired as error:
            raise RegistrationError(
                f"'{' '.join(command)}' did not end in {SYSTEMCTL_TIMEOUT_SECONDS:.0f} s."
            ) from error


def _user_folder() -> Path:
    """Return the folder of a user's own units (systemd.unit(5), "Unit File Load Path")."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _write(texts: Mapping[Path, str | None]) -> None:
    """Write files, each as a whole, and readable to everyone as units are. Remove those whose text is None."""
    for path, text in texts.items():
        try:
            if text is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, text)
                path.chmod(0o644)
            elif path.exists():
                path.unlink()
        except OSError as error:
            verb = "removed" if text is None else "written"
            raise RegistrationError(f"'{error.filename}' cannot be {verb}: {error.strerror}.") from error
