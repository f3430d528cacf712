"""What the services will find on this machine, rehearsed under their account before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from mistral_api.registration.accounts import ServiceAccount
from mistral_api.registration.errors import RegistrationError
from mistral_api.registration.rehearsal import DATA_OF_ANYONE
from mistral_api.settings import declared

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
