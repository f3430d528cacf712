"""Systemd registration.

``systemctl``, for the units of the system or of a user (systemctl(1)).

The services as systemd units, of a user or of the system: written, enabled, removed, asked.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mistral_api.embedded.postgres.account import ACCOUNT_NAME
from mistral_api.registration.environment import (
    InstallEnvironment,
    ServiceAccount,
    account_to_print,
    device_groups,
    made_account,
    own_account,
    rehearse_environment,
)
from mistral_api.registration.service import (
    API,
    NOT_RUNNING,
    PROJECT,
    RUNNING,
    SERVICES,
    UNKNOWN,
    RegistrationError,
    Service,
    ServiceState,
)
from mistral_api.registration.unit_files import SystemAccount, UnitFiles, data_of, file_name, unit_text
from mistral_api.system.files import is_root, make_data_dir

# To restart both units, one after the other, takes TimeoutStopSec and TimeoutStartSec of each at most.
SYSTEMCTL_SECONDS = 600.0
PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "StatusText", "NRestarts")
_ABSENT = ("offline", "unknown", "")


class Systemctl:
    """Runs ``systemctl``; what fails is a RegistrationError."""

    def __init__(self, *, user: bool) -> None:
        self._command = ("systemctl", "--user") if user else ("systemctl",)

    def running(self) -> bool:
        """Whether a systemd runs that can be asked. Without the program there is none."""
        try:
            done = self._run("is-system-running")
        except FileNotFoundError:
            return False
        return done.stdout.strip() not in _ABSENT

    def do(self, *arguments: str) -> None:
        """Carry out a command. Raises RegistrationError."""
        try:
            done = self._run(*arguments)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise RegistrationError(f"'{' '.join((*self._command, *arguments))}' failed: {said[-1]}")

    def show(self, unit: str) -> dict[str, str]:
        """What systemd says of a unit, by property. Raises RegistrationError."""
        try:
            done = self._run("show", f"--property={','.join(PROPERTIES)}", unit)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        if done.returncode != 0:
            raise RegistrationError(f"systemd does not say how '{unit}' is: {done.stderr.strip()}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = (*self._command, *arguments)
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SYSTEMCTL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RegistrationError(f"'{' '.join(command)}' did not end in {SYSTEMCTL_SECONDS:.0f} s.") from error


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
        user = not is_root() if user is None else user
        if user and account:
            raise RegistrationError("--account is for units of the system; a user's own run as that user.")
        self._user = user
        self._account_name = account or ACCOUNT_NAME
        self._project = project
        self._systemctl = Systemctl(user=user)
        self._files = UnitFiles(folder or (_user_folder() if user else SYSTEM_FOLDER), project)

    def texts(self) -> dict[Path, str]:
        """What an installation would write, by file; rehearsed by whoever asks where the account cannot."""
        account = own_account() if self._user else account_to_print(self._account_name)
        return self._texts(
            rehearse_environment(self._project, account or own_account(), whose_data=account is not None)
        )

    def install(self, *, now: bool) -> list[str]:
        """Write and enable the units, and (re)start them where asked to; lines for whoever asked.

        Where it cannot be done, nothing is changed; only the account, without which a start cannot be rehearsed, and
        DATA_DIR are there then.
        """
        self._require_right()
        if not self._systemctl.running():
            raise RegistrationError("No systemd runs here that could be asked; --print shows what would be written.")
        account = own_account() if self._user else made_account(self._account_name)
        found = rehearse_environment(self._project, account)
        texts = self._texts(found)
        self._files.require_free(texts)
        _make_data_dir(found.data_dir, account)
        self._enable(texts)
        if now:
            self._restart(texts)
        return [*(f"written and enabled: {path}" for path in texts), *self._hints(texts, account, now=now)]

    def uninstall(self) -> list[str]:
        """Stop and disable the units and remove their files; data stay where they are."""
        self._require_right()
        written = self._files.written()
        if not written:
            raise RegistrationError(f"No unit of ours is installed in '{self._files.folder}'.")
        running = self._systemctl.running()
        self._systemctl.do("disable", *(["--now"] if running else []), *(path.name for path in written))
        self._files.remove(written)
        if running:
            self._systemctl.do("daemon-reload")
        data = sorted({data_of(text) for text in written.values()})
        return [*(f"removed: {path}" for path in written), *(f"The data stay in {folder}" for folder in data)]

    def states(self) -> list[ServiceState]:
        """How every unit is. Without a running systemd only which files there are is known."""
        running = self._systemctl.running()
        return [self._state(service, running=running) for service in SERVICES]

    def _require_right(self) -> None:
        if not self._user and not is_root():
            raise RegistrationError("Units of the system are root's to install: use sudo, or --user.")

    def _texts(self, found: InstallEnvironment) -> dict[Path, str]:
        """Of the supervisor only where there is a model server to supervise."""
        system = None if self._user else SystemAccount(self._account_name, device_groups())
        services = SERVICES if found.supervised else (API,)
        return {self._files.folder / file_name(each): unit_text(each, found, system) for each in services}

    def _enable(self, texts: dict[Path, str]) -> None:
        """All or nothing: what systemd refuses is taken back. What is not needed any more goes last."""
        before = self._files.written()
        new = [path.name for path in texts if path not in before]
        try:
            with self._files.replaced(texts):
                self._enable_or_disable([path.name for path in texts], new)
        except RegistrationError as error:
            self._take_back(error, "daemon-reload")
            raise
        surplus = [path for path in before if path not in texts]
        if surplus:
            self._systemctl.do("disable", "--now", *(path.name for path in surplus))
            self._files.remove(surplus)
            self._systemctl.do("daemon-reload")

    def _enable_or_disable(self, names: list[str], new: list[str]) -> None:
        """Enable these; where systemd refuses, disable the new ones as long as their files are there."""
        self._systemctl.do("daemon-reload")
        try:
            self._systemctl.do("enable", *names)
        except RegistrationError as error:
            if new:
                self._take_back(error, "disable", *new)
            raise

    def _take_back(self, error: RegistrationError, *arguments: str) -> None:
        """What follows a failure. Raises RegistrationError with both, where it fails too."""
        try:
            self._systemctl.do(*arguments)
        except RegistrationError as another:
            raise RegistrationError(f"{error}; to take it back failed too: {another}") from error

    def _restart(self, texts: dict[Path, str]) -> None:
        """Those that run already would go on as they were."""
        try:
            self._systemctl.do("restart", *(path.name for path in texts))
        except RegistrationError as error:
            raise RegistrationError(f"The units are installed and enabled, but do not start: {error}") from error

    def _hints(self, texts: dict[Path, str], account: ServiceAccount, *, now: bool) -> list[str]:
        hints = []
        systemctl = "systemctl --user" if self._user else "systemctl"
        if not now:
            hints.append(
                "They start with the system, and those that run go on as they were; "
                f"at once: {systemctl} restart {' '.join(path.stem for path in texts)}"
            )
        if self._user and not (LINGERING / account.name).exists():
            hints.append("They end when you log out, unless you run once: loginctl enable-linger")
        dotenv = self._project / ".env"
        if dotenv.exists() and dotenv.stat().st_mode & 0o004:
            # The service itself must still be able to read it.
            closing = f"chmod 600 {dotenv}" if self._user else f"chgrp {account.gid} {dotenv} && chmod 640 {dotenv}"
            hints.append(f"Every account can read {dotenv}; if it holds a password: {closing}")
        return hints

    def _state(self, service: Service, *, running: bool) -> ServiceState:
        name = file_name(service)
        if not running:
            there = self._files.folder / name in self._files.written()
            found = "written, but no systemd runs here" if there else "not installed, and no systemd runs here"
            return ServiceState(name, "unknown", UNKNOWN, found)
        shown = self._systemctl.show(name)
        if shown.get("LoadState") == "not-found":
            return self._not_installed(service)
        active = shown.get("ActiveState", "unknown")
        return ServiceState(name, active, RUNNING if active == "active" else NOT_RUNNING, _detail(shown))

    def _not_installed(self, service: Service) -> ServiceState:
        """A supervisor is not missed where somebody else runs the model server: then the API alone was installed."""
        beside = service is not API and self._files.folder / file_name(API) in self._files.written()
        return ServiceState(file_name(service), "not installed", RUNNING if beside else UNKNOWN)


def _detail(shown: dict[str, str]) -> str:
    parts = [shown.get("SubState", ""), shown.get("UnitFileState", "")]
    if shown.get("MainPID", "0") != "0":
        parts.append(f"pid {shown['MainPID']}")
    if shown.get("NRestarts", "0") != "0":
        parts.append(f"{shown['NRestarts']} restarts")
    if shown.get("Result", "success") != "success":
        parts.append(f"last result: {shown['Result']}")
    return ", ".join(part for part in (*parts, shown.get("StatusText", "")) if part)


def _user_folder() -> Path:
    """Where a user's own units are looked for (systemd.unit(5), "Unit File Load Path")."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _make_data_dir(data_dir: Path, account: ServiceAccount) -> None:
    """For the account alone; what exists has been found to be its own. Raises RegistrationError."""
    if data_dir.exists():
        return
    try:
        if account.uid == os.geteuid():
            make_data_dir(data_dir)
        else:
            data_dir.parent.mkdir(parents=True, exist_ok=True)
            _make_for(account, data_dir)
    except OSError as error:
        raise RegistrationError(f"DATA_DIR: '{data_dir}' cannot be made: {error.strerror}.") from error


def _make_for(account: ServiceAccount, folder: Path) -> None:
    """Root's gift: nobody may put a link in its place before it is given away. Raises OSError, RegistrationError."""
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise RegistrationError(f"DATA_DIR: '{folder}' was replaced by somebody else; choose another place.")
        os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)
