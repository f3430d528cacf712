"""Text and files of the units.

Paths as unit files take them: systemd.unit(5), "Specifiers", and systemd.service(5), "Command Lines".

The text of the systemd units: who runs, when it is restarted, and what it may touch.

systemd.service(5), systemd.exec(5), systemd.kill(5). No setting is written into a unit, least of all a secret:
the processes read ``.env`` in their working directory. The units are commented for whoever reads them there.

Our files among the units of one folder: never somebody else's, and all of them or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.registration.environment import InstallEnvironment
from mistral_api.registration.service import API, SERVICES, SUPERVISOR, RegistrationError, Service
from mistral_api.supervisor.engine import VERSION_SECONDS
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.slot_cache import STOP_SAVE_SECONDS

# Quoting rules differ from directive to directive; nobody has these in a path, so they are refused.
_REFUSED = frozenset("\"'\\")


def plain(path: Path) -> str:
    """For a directive that takes one path to the end of the line. Raises RegistrationError."""
    text = str(path)
    if not text.isprintable() or text != text.strip() or _REFUSED & set(text):
        raise RegistrationError(f"The path {text!r} cannot be written into a unit file: choose a simpler one.")
    return text.replace("%", "%%")


def quoted(path: Path) -> str:
    """For a directive that takes words, such as a list of paths or the program of a command line."""
    return f'"{plain(path)}"'


def assignment(name: str, path: Path) -> str:
    """One word of ``Environment=``, where a dollar sign has no meaning."""
    return f'"{name}={plain(path)}"'


WRITTEN_BY = "# Written by `mistral-api service install`, which writes it anew; `… uninstall` removes it."
_PROJECT, _DATA = "# Project: ", "# Data: "
# Below this port only root may listen, or who has the capability.
FIRST_FREE_PORT = 1024
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# PrivateTmp gives a unit empty ones of its own.
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is written there


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """Whom the units of the system name; a user's own units name nobody."""

    name: str
    device_groups: Sequence[str] = ()


def file_name(service: Service) -> str:
    """The unit's name."""
    return f"{service.name}.service"


def unit_text(service: Service, found: InstallEnvironment, account: SystemAccount | None) -> str:
    """The whole unit: of the system for an account, else of a user."""
    sections = [
        _header(service, found, user=account is None),
        _unit(service, of_system=account is not None),
        _process(service, found),
        _SANDBOX[service],
        _system_sandbox(service, found, account) if account else _USER_NOTE,
        f"[Install]\nWantedBy={'multi-user' if account else 'default'}.target\n",
    ]
    return "\n".join(sections)


def is_ours(text: str) -> bool:
    """Whether a unit was written by us."""
    return text.startswith(WRITTEN_BY)


def project_of(text: str) -> str:
    """The project that a unit of ours runs."""
    return _noted(text, _PROJECT)


def data_of(text: str) -> str:
    """Where the data of a unit of ours lie."""
    return _noted(text, _DATA)


def _noted(text: str, mark: str) -> str:
    return next((line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)), "")


def _header(service: Service, found: InstallEnvironment, *, user: bool) -> str:
    edit = f"systemctl {'--user ' if user else ''}edit {file_name(service)}"
    return (
        f"{WRITTEN_BY}\n# Changes of your own belong beside it: {edit}\n"
        f"{_PROJECT}{found.project}\n{_DATA}{found.data_dir}\n"
    )


def _unit(service: Service, *, of_system: bool) -> str:
    """When it starts, and after how many starts a unit that ends again and again is left alone."""
    lines = ["[Unit]", f"Description={service.title}"]
    after = []
    if of_system:
        lines.append("Wants=network-online.target")
        after.append("network-online.target")
    if service is API:
        lines.append("# An order only: at the end the API stops first, so that running answers are not cut off.")
        after.append(file_name(SUPERVISOR))
    if after:
        lines.append(f"After={' '.join(after)}")
    return "\n".join([*lines, *_START_LIMIT[service], ""])


def _process(service: Service, found: InstallEnvironment) -> str:
    arguments = " ".join(("-m", service.module, *service.arguments))
    return f"""[Service]
Type=notify
NotifyAccess=main
# Settings, secrets among them, are read from .env in this folder; none is written here.
WorkingDirectory={plain(found.project)}
ExecStart={quoted(found.python)} {arguments}
Environment=PYTHONUNBUFFERED=1
# What a main loop was at when the watchdog ended it is said in the journal.
Environment=PYTHONFAULTHANDLER=1
WatchdogSec=120
{_LIFE[service]}
# SIGTERM goes to our process alone, which ends its children in order; what is left of them is killed.
KillMode=mixed
# A child that is killed for want of memory is our process's business.
OOMPolicy=continue
# Dumps would hold what users wrote.
LimitCORE=0
LimitNOFILE=16384
UMask=0077
"""


_START_LIMIT = {
    API: (
        "# A database that is away when the machine starts is tried for about half an hour.",
        "StartLimitIntervalSec=3600",
        "StartLimitBurst=200",
    ),
    SUPERVISOR: ("StartLimitIntervalSec=600", "StartLimitBurst=10"),
}

_LIFE = {
    API: """\
Restart=always
RestartSec=5
# An embedded PostgreSQL is started first; it asks for more time by itself when the schema changes.
TimeoutStartSec=180
# Running answers get SHUTDOWN_SECONDS; it asks for that time by itself.
TimeoutStopSec=90""",
    SUPERVISOR: f"""\
Restart=always
RestartSec=2
# 2: it cannot start, and has said why; 3: it has given the model server up. Restarting would help neither.
RestartPreventExitStatus={" ".join(map(str, SUPERVISOR.final))}
# It has started once its checks are done and its loop runs: from then on the watchdog looks after it, while the
# model loads for as long as it takes.
TimeoutStartSec=180
# A check that cannot be interrupted takes up to {VERSION_SECONDS:.0f} s, saving caches {STOP_SAVE_SECONDS:.0f} s,
# ending the model server {STOP_SECONDS + KILL_SECONDS:.0f} s.
TimeoutStopSec=90""",
}

_COMMON_SANDBOX = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"""

_SANDBOX = {
    API: f"""\
{_COMMON_SANDBOX}
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service
""",
    SUPERVISOR: f"""\
{_COMMON_SANDBOX}
# No MemoryDenyWriteExecute: drivers of graphics cards compile at run time, into memory that they then run.
# No list of the calls that are allowed, since drivers are not ours to know; these no model server needs.
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
""",
}

_USER_NOTE = """\
# No ProtectSystem, PrivateTmp and their like: a user's service manager may not make the mount namespaces that
# they need (systemd.exec(5), "Sandboxing"). Install with --system to have them.
"""


def _system_sandbox(service: Service, found: InstallEnvironment, account: SystemAccount) -> str:
    paths = (found.project, found.python, found.data_dir, *found.needed)
    _require_lasting(paths)
    in_homes = any(_lies_in(path, HOMES) for path in paths)
    lines = [f"User={account.name}"]
    if account.device_groups:
        lines.append(f"SupplementaryGroups={' '.join(account.device_groups)}")
    lines += [*_capabilities(service, found), "ProtectSystem=strict", f"ReadWritePaths={quoted(found.data_dir)}"]
    lines.append(f"ProtectHome={'read-only' if in_homes else 'yes'}")
    return "\n".join([*lines, _SYSTEM_SANDBOX, *_for_drivers(service, found), ""])


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, or what it is a link to, is in one of the folders."""
    return any(place.is_relative_to(folder) for place in (path, path.resolve()) for folder in folders)


def _require_lasting(paths: Iterable[Path]) -> None:
    for path in paths:
        if _lies_in(path, TEMPORARY):
            raise RegistrationError(
                f"'{path}' is, or links to, a place for temporary files, which a service of the system has for itself "
                "and finds empty: move it elsewhere, such as to /opt."
            )


def _capabilities(service: Service, found: InstallEnvironment) -> list[str]:
    if service is API and 0 < found.api_port < FIRST_FREE_PORT:
        return ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]
    return ["CapabilityBoundingSet="]


def _for_drivers(service: Service, found: InstallEnvironment) -> list[str]:
    """The account has no home to write to, and by default little memory that it may lock."""
    if service is not SUPERVISOR:
        return []
    cache = found.data_dir / "cache"
    return [
        "# What drivers have compiled is kept, so that it is not compiled at each start.",
        f"Environment={assignment('XDG_CACHE_HOME', cache)} {assignment('CUDA_CACHE_PATH', cache / 'cuda')}",
        "LimitMEMLOCK=infinity",
    ]


_SYSTEM_SANDBOX = """\
PrivateTmp=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# No PrivateDevices, DeviceAllow or ProtectClock (which closes all other devices): the graphics cards must be
# reachable, and the numbers of their devices are only known once their modules are loaded. The account's
# groups say which devices it may use."""


class UnitFiles:
    """The files of one project's services in one folder; one of a project that is gone (moved, say) is ours too."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self._project = str(project)

    def written(self) -> dict[Path, str]:
        """Those that we have written for the project, with their text. Raises RegistrationError."""
        return {path: text for path, text in self._there().items() if is_ours(text) and self._may_replace(text)}

    def require_free(self, paths: Iterable[Path]) -> None:
        """Refuse to replace what is not ours, or belongs to another copy of the project."""
        there = self._there()
        for path in paths:
            text = there.get(path)
            if text is None:
                continue
            if not is_ours(text):
                raise RegistrationError(f"'{path}' was not written by this command; move it away first.")
            if not self._may_replace(text):
                raise RegistrationError(f"'{path}' runs the project in '{project_of(text)}': uninstall it there first.")

    @contextlib.contextmanager
    def replaced(self, texts: Mapping[Path, str]) -> Iterator[None]:
        """Write these; everything is as before when the body fails. Raises RegistrationError."""
        before = self._there()
        try:
            for path, text in texts.items():
                _write(path, text)
            yield
        except (OSError, RegistrationError) as error:
            for path in texts:
                path.unlink(missing_ok=True)
            for path, text in before.items():
                _write(path, text)
            if isinstance(error, OSError):
                raise RegistrationError(f"'{error.filename}' cannot be written: {error.strerror}.") from error
            raise

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files of ours. Raises RegistrationError."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RegistrationError(f"'{path}' cannot be removed: {error.strerror}.") from error

    def _may_replace(self, text: str) -> bool:
        project = project_of(text)
        return project == self._project or _is_gone(project)

    def _there(self) -> dict[Path, str]:
        """Whatever has the name of one of our units."""
        paths = [self.folder / file_name(service) for service in SERVICES]
        try:
            return {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
        except (OSError, ValueError) as error:
            raise RegistrationError(f"The units in '{self.folder}' cannot be read: {error}.") from error


def _is_gone(folder: str) -> bool:
    """Whether it is certain that there is no such folder: one that cannot be looked at may be there."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return folder != ""
    except OSError:
        return False
    return False


def _write(path: Path, text: str) -> None:
    """Whole or not at all; readable to everyone, as units are. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        writing.write_text(text, encoding="utf-8")
        writing.chmod(0o644)
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)
