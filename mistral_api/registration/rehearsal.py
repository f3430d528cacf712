"""The rehearsal of a start: what a service on Linux will find, and what would keep it from starting.

:func:`rehearse_environment` runs ``python -m mistral_api.registration.rehearsal`` under the service's account, in the
project's folder, and without the environment of the shell. That process prints what the unit files need as JSON, or
one sentence about what would keep the service from starting. It prints no setting that could hold a secret.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("The rehearsal is Linux'.")

import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import click

from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.database.revisions import MIGRATIONS
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import served_model_path
from mistral_api.registration.accounts import device_groups
from mistral_api.registration.service import RegistrationError
from mistral_api.settings import SettingError, Settings, load_settings, read_dotenv_file, setting_fields
from mistral_api.settings.dotenv_file import LLAMA_PREFIXES
from mistral_api.supervisor.engine import LLAMA_SERVER
from mistral_api.system.addresses import is_loopback
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.files import is_root
from mistral_api.system.processes import CommandOptions, error_lines, run_command
from mistral_api.system.project import PROJECT_VARIABLE, project_folder

REHEARSAL_TIMEOUT_SECONDS = 120.0
# What systemd gives to a service (systemd.exec(5), "Environment Variables in Spawned Processes").
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The argument that leaves DATA_DIR unchecked.
SKIP_DATA_DIR = "--skip-data-dir"
# llama.cpp's variables that name another machine (common/arg.cpp): files to download, and servers that compute.
_REMOTE = re.compile(r"LLAMA_ARG_.*(URL|REPO|RPC)")
# The account that the rehearsal's process runs as.
_ACCOUNT = f"the account '{os.environ.get('USER', '')}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallEnvironment:
    """Where everything lies, and what shapes the units.

    ``supervised``: whether there is a model server of ours. ``needed``: other files that must stay readable.
    ``device_groups``: the groups that a service needs for a graphics card. ``stays_on_loopback``: whether the model
    servers need no other machine.
    """

    project: Path
    python: Path
    data_dir: Path
    api_port: int
    supervised: bool
    needed: tuple[Path, ...] = ()
    device_groups: tuple[str, ...] = ()
    stays_on_loopback: bool = False


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
        needed=tuple(map(Path, findings["needed"])),
        device_groups=device_groups(),
        stays_on_loopback=findings["stays_on_loopback"],
    )


def _require_settings_in_dotenv(dotenv: Path) -> None:
    """Refuse a setting that only this shell has: the service would silently have another. Empty means not set."""
    try:
        in_file = read_dotenv_file(dotenv, os.environ).values
    except SettingError as error:
        raise RegistrationError(str(error)) from error
    names = {name for name, _ in setting_fields()} | {name for name in os.environ if name.startswith(LLAMA_PREFIXES)}
    same = {name for name, value in in_file.items() if os.environ.get(name) in (value.text, value.parsed)}
    only_here = sorted(name for name in names - same if os.environ.get(name))
    if Path(os.environ.get(PROJECT_VARIABLE) or dotenv.parent).absolute() != dotenv.parent:
        raise RegistrationError(f"A service does not see this shell's {PROJECT_VARIABLE}: unset it.")
    if only_here:
        raise RegistrationError(
            f"A service does not see this shell's environment, which sets {', '.join(only_here)}: write that into "
            f"'{dotenv}', or unset it."
        )


def _run_rehearsal(project: Path, account: pwd.struct_passwd, *arguments: str) -> str:
    """Run the rehearsal as the account and return its output. Raises RegistrationError."""
    command = [sys.executable, "-m", "mistral_api.registration.rehearsal", *arguments]
    try:
        done = run_command(command, REHEARSAL_TIMEOUT_SECONDS, **_as_service(project, account))
    except subprocess.TimeoutExpired as error:
        raise RegistrationError(
            f"'{sys.executable}' did not come up within {REHEARSAL_TIMEOUT_SECONDS:.0f} s."
        ) from error
    except OSError as error:
        reason = str(error.strerror)
    else:
        if done.returncode == ExitCode.OK:
            return done.stdout
        lines = error_lines(done)
        if done.returncode == ExitCode.CANNOT_START:
            raise RegistrationError("\n".join(lines))
        reason = lines[-1]
    raise RegistrationError(
        f"The account '{account.pw_name}' cannot run the server in '{project}' ({reason}): move the project to a "
        "folder that every account can read, such as /opt, or give another --account, or install with --user."
    )


def _as_service(project: Path, account: pwd.struct_passwd) -> CommandOptions:
    """Return the options that run a command as systemd would run it under the account."""
    options: CommandOptions = {
        "cwd": project,
        "env": {"PATH": SERVICE_PATH, "HOME": account.pw_dir, "USER": account.pw_name, PROJECT_VARIABLE: str(project)},
    }
    if account.pw_uid != os.geteuid():  # only root can become another account
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    return options


def main() -> int:
    """Print the findings and return OK, or a sentence on the standard error stream and return CANNOT_START.

    Exits with a few words and FAILED where the account cannot run the server at all.
    """
    if not os.access(Path.cwd(), os.R_OK | os.X_OK):
        sys.exit("permission denied")
    try:
        settings = _readable_settings()
        if SKIP_DATA_DIR not in sys.argv[1:]:
            _require_own_data_dir(settings.data_dir)
        findings = {
            "data_dir": settings.data_dir,
            "api_port": settings.api_port,
            "supervised": settings.supervises_any,
            "needed": _required_files(settings),
            "stays_on_loopback": _stays_on_loopback(settings),
        }
    except (SettingError, StartError) as error:
        click.echo(error, err=True)
        return ExitCode.CANNOT_START
    click.echo(json.dumps(findings, default=str))
    return ExitCode.OK


def _readable_settings() -> Settings:
    dotenv = project_folder() / ".env"
    # os.path.exists, here and below: Path.exists raises PermissionError where this returns False.
    if os.path.exists(dotenv) and not os.access(dotenv, os.R_OK):
        raise StartError(
            f"'{dotenv}' cannot be read by {_ACCOUNT}: give it the account's group and mode 640 "
            f"(chgrp {os.getegid()} {dotenv} && chmod 640 {dotenv})."
        )
    if not os.access(MIGRATIONS / "env.py", os.R_OK):
        raise StartError(f"'{MIGRATIONS}' cannot be read by {_ACCOUNT}.")
    return load_settings()


def _require_own_data_dir(data_dir: Path) -> None:
    """Refuse data of another account: they are not taken over, nor half of them. Raises StartError."""
    if not os.path.exists(data_dir):
        parent = next(folder for folder in data_dir.parents if os.path.exists(folder))
        if not os.access(parent, os.X_OK):
            raise StartError(f"DATA_DIR: '{data_dir}' cannot be reached by {_ACCOUNT}.")
        return
    foreign = [data_dir]  # unless it can be looked into
    if os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        foreign = [path for path in (data_dir, *data_dir.iterdir()) if path.lstat().st_uid != os.geteuid()]
    if foreign:
        raise StartError(
            f"DATA_DIR: '{foreign[0]}' belongs to another account than {_ACCOUNT}; "
            "set another DATA_DIR in .env, or hand it over first (docs/operation.md says how)."
        )
    postgres = data_dir / "postgres"
    if not is_root() and any(os.path.exists(postgres / name) for name in ("server", "location.txt")):
        raise StartError(
            f"DATA_DIR: '{data_dir}' holds the PostgreSQL of a server that ran as root; docs/operation.md says how "
            "to hand it over, or choose another DATA_DIR."
        )


def _required_files(settings: Settings) -> list[Path]:
    """Return Python, and for a model server the models, llama-server and the files in llama.cpp's variables."""
    # The environment's Python is a link to the one that it was made with, which may lie anywhere.
    python = [Path(sys.executable), Path(sys.base_prefix)]
    if not settings.supervises_any:
        return python
    models = [_readable_model(spec) for spec in server_specs(settings)]
    program = shutil.which(settings.llama_server_bin or LLAMA_SERVER)
    if settings.llama_server_bin is not None and program is None:
        raise StartError(f"LLAMA_SERVER_BIN: '{settings.llama_server_bin}' cannot be run by {_ACCOUNT}.")
    return [*python, *models, *([Path(program).absolute()] if program else []), *_files_in_variables()]


def _readable_model(spec: ServerSpec) -> Path:
    model = served_model_path(spec.settings).absolute()
    try:
        model.open("rb").close()
    except OSError as error:
        raise StartError(f"{spec.path_setting}: '{model}' cannot be read by {_ACCOUNT}: {error.strerror}.") from error
    return model


def _stays_on_loopback(settings: Settings) -> bool:
    """Whether the model servers listen on this machine alone, and are told to fetch nothing from another one."""
    own = [spec.settings for spec in server_specs(settings)]
    local = all(each.model_server_socket is not None or is_loopback(each.model_server_host) for each in own)
    return local and not any(_REMOTE.search(name) for name, value in os.environ.items() if value)


def _files_in_variables() -> list[Path]:
    """Return adapters, templates and the like in LLAMA_ARG_*: one, or a list (``a.gguf,b.gguf``, ``a.gguf:0.5``)."""
    values = [value for name, value in os.environ.items() if "LLAMA_ARG_" in name]
    parts = {part for value in values for part in (value, *re.split(r"[,:]", value))}
    return [Path(part).absolute() for part in sorted(parts) if os.path.isfile(part)]


if __name__ == "__main__":
    sys.exit(main())
