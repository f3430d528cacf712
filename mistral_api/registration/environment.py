"""The environment of the services on Linux: the account that they run as, and what a rehearsal under it finds.

They run under the account of the user who installs them, or, for the whole system, under one without privileges.
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

from dotenv import dotenv_values

from mistral_api.embedded.postgres.account import ACCOUNT_NAME, account_for_postgres
from mistral_api.errors import StartError
from mistral_api.registration.rehearsal import SKIP_DATA_DIR
from mistral_api.registration.service import RegistrationError
from mistral_api.settings import setting_fields
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.files import is_root, make_data_dir
from mistral_api.system.processes import CommandOptions, error_lines, run_command

# Groups that may use graphics cards, on the distributions that have them.
DEVICE_GROUPS = ("video", "render")
REHEARSAL_SECONDS = 120.0
# What systemd gives to a service (systemd.exec(5), "Environment Variables in Spawned Processes").
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def own_account() -> pwd.struct_passwd:
    """Return the account of this process. Raises RegistrationError where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise RegistrationError(f"The account with the number {os.geteuid()} has no name on this machine.") from error


def system_account(name: str) -> pwd.struct_passwd:
    """Return an account for services of the system. Raises RegistrationError for root, and where it is missing."""
    try:
        account = pwd.getpwnam(name)
    except KeyError as error:
        raise RegistrationError(f"There is no account named '{name}' on this machine.") from error
    if account.pw_uid == 0:
        raise RegistrationError("The services do not run as root: give another --account, or none for our own.")
    return account


def make_system_account(name: str) -> pwd.struct_passwd:
    """Return what :func:`system_account` returns; root makes our own account where it is missing."""
    if name == ACCOUNT_NAME:
        try:
            account_for_postgres()  # an embedded PostgreSQL under root has the same account
        except StartError as error:
            raise RegistrationError(f"The account '{name}' cannot be made: {error}") from error
    return system_account(name)


def can_become(name: str) -> bool:
    """Whether this process can run a rehearsal as the account. Nobody can while our own account is not made yet."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return name != ACCOUNT_NAME and is_root()
    return is_root()


def device_groups() -> list[str]:
    """Return the groups that a service needs for a graphics card; systemd refuses names that do not exist."""
    existing = {entry.gr_name for entry in grp.getgrall()}
    return [name for name in DEVICE_GROUPS if name in existing]


def make_data_dir_for(account: pwd.struct_passwd, data_dir: Path) -> None:
    """Make DATA_DIR for the account alone; the rehearsal has checked the owner of one that exists.

    Raises RegistrationError.
    """
    if data_dir.exists():
        return
    try:
        if account.pw_uid == os.geteuid():
            make_data_dir(data_dir)
        else:
            data_dir.parent.mkdir(parents=True, exist_ok=True)
            data_dir.mkdir(mode=0o700)
            _give_folder(account, data_dir)
    except OSError as error:
        raise RegistrationError(f"DATA_DIR: '{data_dir}' cannot be made: {error.strerror}.") from error


def _give_folder(account: pwd.struct_passwd, folder: Path) -> None:
    """Give a folder that root has just made to the account. Nobody may put a link in its place before that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise RegistrationError(f"DATA_DIR: '{folder}' was replaced by somebody else; choose another place.")
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallEnvironment:
    """Where everything lies, and the settings that shape the units; ``needed``: files that must stay readable."""

    project: Path
    python: Path
    data_dir: Path
    api_port: int
    supervised: bool
    needed: tuple[Path, ...] = ()


def rehearse_environment(
    project: Path, account: pwd.struct_passwd, *, check_data_dir: bool = True
) -> InstallEnvironment:
    """Rehearse a start as the account. Raises RegistrationError with what would keep the services from starting.

    ``check_data_dir=False`` is for an account that stands in for the services' own.
    """
    _require_settings_in_dotenv(project / ".env")
    findings = json.loads(_run_rehearsal(project, account, *([] if check_data_dir else [SKIP_DATA_DIR])))
    return InstallEnvironment(
        project=project,
        python=Path(sys.executable),
        data_dir=Path(findings["data_dir"]),
        api_port=findings["api_port"],
        supervised=findings["supervised"],
        needed=tuple(Path(path) for path in findings["needed"]),
    )


def _run_rehearsal(project: Path, account: pwd.struct_passwd, *arguments: str) -> str:
    """Run the rehearsal as the account and return its output. Raises RegistrationError."""
    command = [sys.executable, "-m", "mistral_api.registration.rehearsal", *arguments]
    try:
        done = run_command(command, REHEARSAL_SECONDS, **_as_service(project, account))
    except subprocess.TimeoutExpired as error:
        raise RegistrationError(f"'{sys.executable}' did not come up within {REHEARSAL_SECONDS:.0f} s.") from error
    except OSError as error:
        raise _cannot_run(project, account, str(error.strerror)) from error
    if done.returncode == ExitCode.OK:
        return done.stdout
    lines = error_lines(done)
    if done.returncode == ExitCode.CANNOT_START and len(lines) == 1:
        raise RegistrationError(lines[0])
    raise _cannot_run(project, account, lines[-1])


def _as_service(project: Path, account: pwd.struct_passwd) -> CommandOptions:
    """Return the options that run a command as systemd would run it under the account."""
    options: CommandOptions = {
        "cwd": project,
        "env": {"PATH": SERVICE_PATH, "HOME": account.pw_dir, "USER": account.pw_name},
    }
    if account.pw_uid != os.geteuid():  # only root can become another account
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    return options


def _cannot_run(project: Path, account: pwd.struct_passwd, reason: str) -> RegistrationError:
    return RegistrationError(
        f"The account '{account.pw_name}' cannot run the server in '{project}' ({reason}): move the project to a "
        "folder that every account can read, such as /opt, or give another --account, or install with --user."
    )


def _require_settings_in_dotenv(dotenv: Path) -> None:
    """Refuse a setting that only this shell has: the service would silently have another. Empty means not set."""
    try:
        in_file = dotenv_values(dotenv)
    except OSError as error:
        raise RegistrationError(f"'{dotenv}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RegistrationError(f"'{dotenv}' cannot be read: it is not UTF-8.") from error
    names = {name for name, _ in setting_fields()} | {name for name in os.environ if name.startswith("LLAMA_ARG_")}
    only_here = sorted(name for name in names if os.environ.get(name) and os.environ[name] != in_file.get(name))
    if only_here:
        raise RegistrationError(
            f"A service does not see this shell's environment, which sets {', '.join(only_here)}: write that into "
            f"'{dotenv}', or unset it."
        )
