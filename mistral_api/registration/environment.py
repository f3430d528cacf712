"""What the services will find, and under which account.

Under which account the services run: that of whoever installs them, or for the system one without privileges.

What the services will find on this machine, rehearsed under their account before anything is written.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from mistral_api.embedded.postgres import EmbeddedPostgresError
from mistral_api.embedded.postgres.account import ACCOUNT_NAME, account_for_postgres
from mistral_api.registration.rehearsal import DATA_OF_ANYONE
from mistral_api.registration.service import RegistrationError
from mistral_api.settings import declared

# Groups that may use graphics cards, on the distributions that have them.
_DEVICE_GROUPS = ("video", "render")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """One account of the system."""

    name: str
    uid: int
    gid: int
    home: str

    @property
    def groups(self) -> list[int]:
        """Every group it is in, by number."""
        return os.getgrouplist(self.name, self.gid)


def own_account() -> ServiceAccount:
    """The account of this process. Raises RegistrationError where it has no name."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise RegistrationError(f"The account with the number {os.geteuid()} has no name on this machine.") from error
    return ServiceAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def account_named(name: str) -> ServiceAccount:
    """An account for a system service. Raises RegistrationError for root, and for one that is missing."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise RegistrationError(f"There is no account named '{name}' on this machine.") from error
    if entry.pw_uid == 0:
        raise RegistrationError("The services do not run as root: give another --account, or none for our own.")
    return ServiceAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def made_account(name: str) -> ServiceAccount:
    """As :func:`account_named`; our own account is made if need be (by root). Raises RegistrationError."""
    if name == ACCOUNT_NAME:
        try:
            account_for_postgres()  # our account and that of an embedded PostgreSQL under root are the same
        except EmbeddedPostgresError as error:
            raise RegistrationError(f"The account '{name}' cannot be made: {error}") from error
    return account_named(name)


def account_to_print(name: str) -> ServiceAccount | None:
    """As :func:`account_named`, but None where this process cannot become the account, or it is still to be made."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        if name == ACCOUNT_NAME:
            return None
    return account_named(name)


def device_groups() -> list[str]:
    """The groups that a service needs for a graphics card; systemd refuses names that do not exist."""
    known = {entry.gr_name for entry in grp.getgrall()}
    return [name for name in _DEVICE_GROUPS if name in known]


REHEARSAL_SECONDS = 120.0
# What systemd gives to a service (systemd.exec(5), "Environment Variables in Spawned Processes").
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallEnvironment:
    """Where everything is, and what of the settings shapes the units; ``needed``: files that must stay readable."""

    project: Path
    python: Path
    data_dir: Path
    api_port: int
    supervised: bool
    needed: tuple[Path, ...] = ()


def rehearse_environment(project: Path, account: ServiceAccount, *, whose_data: bool = True) -> InstallEnvironment:
    """Rehearse a start as the account. Raises RegistrationError with what would keep the services from starting.

    ``whose_data=False`` asks nothing of DATA_DIR: for an account that stands in for the services' own.
    """
    _require_visible_settings(project)
    found = _rehearse(project, account, *([] if whose_data else [DATA_OF_ANYONE]))
    return InstallEnvironment(
        project=project,
        python=Path(sys.executable),
        data_dir=Path(found["data_dir"]),
        api_port=int(found["api_port"]),
        supervised=bool(found["supervised"]),
        needed=tuple(Path(path) for path in found["needed"]),
    )


def _require_visible_settings(project: Path) -> None:
    """A setting that only this shell has would silently be another one in the service; an empty one is not set."""
    names = {name for name, _ in declared()} | {name for name in os.environ if name.startswith("LLAMA_ARG_")}
    try:
        written = dotenv_values(project / ".env")
    except OSError as error:
        raise RegistrationError(f"'{project / '.env'}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RegistrationError(f"'{project / '.env'}' cannot be read: it is not UTF-8.") from error
    only_here = sorted(name for name in names if os.environ.get(name) and os.environ[name] != written.get(name))
    if only_here:
        raise RegistrationError(
            f"A service does not see this shell's environment, which sets {', '.join(only_here)}: write that into "
            f"'{project / '.env'}', or unset it."
        )


def _rehearse(project: Path, account: ServiceAccount, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "mistral_api.registration.rehearsal", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env={"PATH": SERVICE_PATH, "HOME": account.home, "USER": account.name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=REHEARSAL_SECONDS,
            check=False,
            **_as_account(account),
        )
    except subprocess.TimeoutExpired as error:
        raise RegistrationError(f"'{sys.executable}' did not come up within {REHEARSAL_SECONDS:.0f} s.") from error
    except OSError as error:
        raise _unreachable(project, account, str(error.strerror)) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        if done.returncode == 2 and len(said) == 1:
            raise RegistrationError(said[0])
        raise _unreachable(project, account, said[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _as_account(account: ServiceAccount) -> dict[str, Any]:
    """Nothing changes for our own account; only root can become another."""
    if account.uid == os.geteuid():
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": account.groups}


def _unreachable(project: Path, account: ServiceAccount, reason: str) -> RegistrationError:
    return RegistrationError(
        f"The account '{account.name}' cannot run the server in '{project}' ({reason}): move the project to a folder "
        "that every account can read, such as /opt, or give another --account, or install with --user."
    )
