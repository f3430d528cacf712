"""The systemd unit files of the services: their text, and the files themselves.

The text says who runs, when it is restarted, and what it may touch (systemd.service(5), systemd.exec(5),
systemd.kill(5)). No setting is written into a unit, least of all a secret: the processes read ``.env`` in their working
directory. The units are commented for whoever reads them there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.registration.environment import InstallEnvironment
from mistral_api.registration.service import API, SERVICES, SUPERVISOR, RegistrationError, Service
from mistral_api.supervisor.engine import VERSION_SECONDS
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.slot_cache import STOP_SAVE_SECONDS
from mistral_api.system.files import replace_file

WRITTEN_BY = "# Written by `mistral-api service install`, which writes it anew; `… uninstall` removes it."
# Below this port only root may listen, or who has the capability.
FIRST_FREE_PORT = 1024
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# PrivateTmp gives a unit empty ones of its own.
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is written there

_UNIT = """\
{written_by}
# Changes of your own belong beside it: systemctl {option}edit {file_name}
# Project: {project}
# Data: {data_dir}

[Unit]
Description={title}
{order}{start_limit}

[Service]
Type=notify
NotifyAccess=main
# Settings, secrets among them, are read from .env in this folder; none is written here.
WorkingDirectory={folder}
ExecStart="{python}" -m {module}
Environment=PYTHONUNBUFFERED=1
# What a main loop was at when the watchdog ended it is said in the journal.
Environment=PYTHONFAULTHANDLER=1
WatchdogSec=120
Restart=always
{restart}
# SIGTERM goes to our process alone, which ends its children in order; what is left of them is killed.
KillMode=mixed
# A child that is killed for want of memory is our process's business.
OOMPolicy=continue
# Dumps would hold what users wrote.
LimitCORE=0
LimitNOFILE=16384
UMask=0077

NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{system_calls}

{sandbox}

[Install]
WantedBy={target}.target
"""

# What differs between the services: when one that ends again and again is left alone, when it is restarted, and which
# system calls it may make.
_PARTS = {
    API: {
        "start_limit": """\
# A database that is away when the machine starts is tried for about half an hour.
StartLimitIntervalSec=3600
StartLimitBurst=200""",
        "restart": """\
RestartSec=5
# An embedded PostgreSQL is started first; it asks for more time by itself when the schema changes.
TimeoutStartSec=180
# Running answers get SHUTDOWN_SECONDS; it asks for that time by itself.
TimeoutStopSec=90""",
        "system_calls": """\
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service""",
    },
    SUPERVISOR: {
        "start_limit": """\
StartLimitIntervalSec=600
StartLimitBurst=10""",
        "restart": f"""\
RestartSec=2
# 2: it cannot start, and has said why; 3: it has given the model server up. Restarting would help neither.
RestartPreventExitStatus={" ".join(map(str, SUPERVISOR.final))}
# It has started once its checks are done and its loop runs: from then on the watchdog looks after it, while the
# model loads for as long as it takes.
TimeoutStartSec=180
# A check that cannot be interrupted takes up to {VERSION_SECONDS:.0f} s, saving caches {STOP_SAVE_SECONDS:.0f} s,
# ending the model server {STOP_SECONDS + KILL_SECONDS:.0f} s.
TimeoutStopSec=90""",
        "system_calls": """\
# No MemoryDenyWriteExecute: drivers of graphics cards compile at run time, into memory that they then run.
# No list of the calls that are allowed, since drivers are not ours to know; these no model server needs.
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap""",
    },
}

_USER_SANDBOX = """\
# No ProtectSystem, PrivateTmp and their like: a user's service manager may not make the mount namespaces that
# they need (systemd.exec(5), "Sandboxing"). Install with --system to have them."""

_SYSTEM_SANDBOX = """\
User={account}
{groups}{capabilities}
ProtectSystem=strict
ReadWritePaths="{data_dir}"
ProtectHome={home}
PrivateTmp=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# No PrivateDevices, DeviceAllow or ProtectClock (which closes all other devices): the graphics cards must be
# reachable, and the numbers of their devices are only known once their modules are loaded. The account's
# groups say which devices it may use."""

# The account has no home to write to, and by default little memory that it may lock.
_FOR_DRIVERS = """
# What drivers have compiled is kept, so that it is not compiled at each start.
Environment="XDG_CACHE_HOME={data_dir}/cache" "CUDA_CACHE_PATH={data_dir}/cache/cuda"
LimitMEMLOCK=infinity"""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """The account that units of the system name; a user's own units name none."""

    name: str
    device_groups: Sequence[str] = ()


def file_name(service: Service) -> str:
    """Return the name of the service's unit."""
    return f"{service.name}.service"


def unit_text(service: Service, environment: InstallEnvironment, account: SystemAccount | None) -> str:
    """Return the whole unit: of the system where there is an account, else of a user. Raises RegistrationError."""
    return _UNIT.format(
        written_by=WRITTEN_BY,
        option="" if account else "--user ",
        file_name=file_name(service),
        project=environment.project,
        data_dir=environment.data_dir,
        title=service.title,
        order=_order(service, of_system=account is not None),
        folder=_escape(environment.project),
        python=_escape(environment.python),
        module=" ".join((service.module, *service.arguments)),
        sandbox=_system_sandbox(service, environment, account) if account else _USER_SANDBOX,
        target="multi-user" if account else "default",
        **_PARTS[service],
    )


def is_ours(text: str) -> bool:
    """Whether a unit was written by us."""
    return text.startswith(WRITTEN_BY)


def project_of(text: str) -> str:
    """Return the project that a unit of ours runs."""
    return _comment(text, "Project")


def data_of(text: str) -> str:
    """Return the folder with the data of a unit of ours."""
    return _comment(text, "Data")


def _comment(text: str, label: str) -> str:
    found = re.search(f"^# {label}: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def _escape(path: Path) -> str:
    """Return a path as unit files take it (systemd.unit(5), "Specifiers"). Raises RegistrationError.

    Quoting rules differ between directives. Nobody has quotes, backslashes and the like in a path: they are refused.
    """
    text = str(path)
    if not text.isprintable() or text != text.strip() or set("\"'\\") & set(text):
        raise RegistrationError(f"The path {text!r} cannot be written into a unit file: choose a simpler one.")
    return text.replace("%", "%%")


def _order(service: Service, *, of_system: bool) -> str:
    """Return what the unit is started after."""
    after = [*(["network-online.target"] if of_system else []), *([file_name(SUPERVISOR)] if service is API else [])]
    wants = "Wants=network-online.target\n" if of_system else ""
    reason = "# An order only: at the end the API stops first, so that running answers are not cut off.\n"
    return wants + (reason if service is API else "") + (f"After={' '.join(after)}\n" if after else "")


def _system_sandbox(service: Service, environment: InstallEnvironment, account: SystemAccount) -> str:
    """Return who a unit of the system runs as, and what it may touch. Raises RegistrationError."""
    paths = (environment.project, environment.python, environment.data_dir, *environment.needed)
    for path in paths:
        if _lies_in(path, TEMPORARY):
            raise RegistrationError(
                f"'{path}' is, or links to, a place for temporary files, which a service of the system has for itself "
                "and finds empty: move it elsewhere, such as to /opt."
            )
    binds_low_port = service is API and 0 < environment.api_port < FIRST_FREE_PORT
    capabilities = ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]
    template = _SYSTEM_SANDBOX + (_FOR_DRIVERS if service is SUPERVISOR else "")
    return template.format(
        account=account.name,
        groups=f"SupplementaryGroups={' '.join(account.device_groups)}\n" if account.device_groups else "",
        capabilities="\n".join(capabilities) if binds_low_port else "CapabilityBoundingSet=",
        data_dir=_escape(environment.data_dir),
        home="read-only" if any(_lies_in(path, HOMES) for path in paths) else "yes",
    )


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, or what it links to, lies in one of the folders."""
    return any(place.is_relative_to(folder) for place in (path, path.resolve()) for folder in folders)


class UnitFiles:
    """The unit files of the services in one folder. Every failure is a RegistrationError.

    The files of another copy of the project are not ours, unless that copy is gone: it may have been moved to here.
    """

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self._project = str(project)

    def existing(self) -> dict[Path, str]:
        """Return the text of every file that has the name of one of our units, whoever has written it."""
        paths = [self.folder / file_name(service) for service in SERVICES]
        try:
            return {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
        except (OSError, ValueError) as error:
            raise RegistrationError(f"The units in '{self.folder}' cannot be read: {error}.") from error

    def installed(self) -> dict[Path, str]:
        """Return the text of every file that we have written for this project."""
        return {path: text for path, text in self.existing().items() if self._refusal(path, text) is None}

    def require_free(self, paths: Collection[Path]) -> None:
        """Refuse to replace a file that is not ours."""
        for path, text in self.existing().items():
            refusal = self._refusal(path, text)
            if path in paths and refusal is not None:
                raise RegistrationError(refusal)

    def _refusal(self, path: Path, text: str) -> str | None:
        """Return why a file is not ours to replace, or None where it is."""
        if not is_ours(text):
            return f"'{path}' was not written by this command; move it away first."
        project = project_of(text)
        if project == self._project or _is_gone(project):
            return None
        return f"'{path}' runs the project in '{project}': uninstall it there first."

    def write(self, texts: Mapping[Path, str]) -> None:
        """Write files, each as a whole, and readable to everyone as units are."""
        for path, text in texts.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, text)
                path.chmod(0o644)
            except OSError as error:
                raise RegistrationError(f"'{error.filename}' cannot be written: {error.strerror}.") from error

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files where they are."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RegistrationError(f"'{path}' cannot be removed: {error.strerror}.") from error


def _is_gone(folder: str) -> bool:
    """Whether a folder certainly does not exist."""
    try:
        return folder != "" and not Path(folder).exists()
    except OSError:  # it cannot be looked at, so it may exist
        return False
