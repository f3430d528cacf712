"""The services as systemd units, of a user or of the system: written, enabled, removed, asked."""

from __future__ import annotations

import os
from pathlib import Path

from mistral_api.data_dir import is_root, make_data_dir
from mistral_api.embedded.postgres.account import ACCOUNT_NAME
from mistral_api.registration.accounts import ServiceAccount, account_named, device_groups, made, own_account
from mistral_api.registration.errors import RegistrationError
from mistral_api.registration.names import API, PROJECT, SERVICES, Service
from mistral_api.registration.report import NOT_RUNNING, RUNNING, UNKNOWN, ServiceState
from mistral_api.registration.surroundings import Surroundings, surroundings
from mistral_api.registration.systemctl import Systemctl
from mistral_api.registration.unit_files import UnitFiles
from mistral_api.registration.units import SystemAccount, data_of, file_name, unit_text

SYSTEM_FOLDER = Path("/etc/systemd/system")
LINGERING = Path("/var/lib/systemd/linger")


class SystemdRegistration:
    """The units of one scope. Every failure is a RegistrationError, and changes nothing."""

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
        """What an installation would write, by file."""
        self._require_right()
        account = self._account()
        return self._texts(surroundings(self._project, account), account)

    def install(self, *, now: bool) -> list[str]:
        """Write and enable the units, and start them where asked to; lines for whoever asked."""
        self._require_right()
        account = self._account()
        found = surroundings(self._project, account)
        texts = self._texts(found, account)
        self._files.require_free(texts)
        if not self._systemctl.running():
            raise RegistrationError("No systemd runs here that could be asked; --print shows what would be written.")
        account = made(account)
        _make_data_dir(found.data_dir, account)
        self._enable(texts)
        if now:
            self._start(texts)
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

    def _account(self) -> ServiceAccount:
        return own_account() if self._user else account_named(self._account_name)

    def _texts(self, found: Surroundings, account: ServiceAccount) -> dict[Path, str]:
        """Of the supervisor only where there is a model server to supervise."""
        system = None if self._user else SystemAccount(account.name, device_groups())
        services = SERVICES if found.supervised else (API,)
        return {self._files.folder / file_name(each): unit_text(each, found, system) for each in services}

    def _enable(self, texts: dict[Path, str]) -> None:
        """All or nothing: what systemd refuses is taken back."""
        surplus = {path: text for path, text in self._files.written().items() if path not in texts}
        if surplus:
            self._systemctl.do("disable", "--now", *(path.name for path in surplus))
        with self._files.replaced(texts, surplus):
            self._systemctl.do("daemon-reload")
            self._systemctl.do("enable", *(path.name for path in texts))

    def _start(self, texts: dict[Path, str]) -> None:
        try:
            self._systemctl.do("start", *(path.name for path in texts))
        except RegistrationError as error:
            raise RegistrationError(f"The units are installed and enabled, but do not start: {error}") from error

    def _hints(self, texts: dict[Path, str], account: ServiceAccount, *, now: bool) -> list[str]:
        hints = []
        systemctl = "systemctl --user" if self._user else "systemctl"
        if not now:
            hints.append(
                f"They start with the system; at once: {systemctl} start {' '.join(path.stem for path in texts)}"
            )
        if self._user and not (LINGERING / account.name).exists():
            hints.append("They end when you log out, unless you run once: loginctl enable-linger")
        dotenv = self._project / ".env"
        if dotenv.exists() and dotenv.stat().st_mode & 0o004:
            hints.append(f"Every account can read {dotenv}; if it holds a password: chmod o-rwx {dotenv}")
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
        make_data_dir(data_dir)
        if account.uid != os.geteuid():
            data_dir.chmod(0o700)
            os.chown(data_dir, account.uid, account.gid)
    except OSError as error:
        raise RegistrationError(f"DATA_DIR: '{data_dir}' cannot be made: {error.strerror}.") from error
