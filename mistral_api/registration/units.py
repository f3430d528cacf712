"""The text of the systemd units: who runs, when it is restarted, and what it may touch.

systemd.service(5), systemd.exec(5), systemd.kill(5). No setting is written into a unit, least of all a secret:
the processes read ``.env`` in their working directory. The units are commented for whoever reads them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.registration.errors import RegistrationError
from mistral_api.registration.escaping import assignment, plain, quoted
from mistral_api.registration.names import API, SUPERVISOR, Service
from mistral_api.registration.surroundings import InstallEnvironment
from mistral_api.supervisor.engine import VERSION_SECONDS
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.warm.caches import STOP_SAVE_SECONDS

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
