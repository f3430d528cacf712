"""The account that the embedded PostgreSQL runs under: ours, or, since it refuses root, one without privileges."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.errors import StartError
from mistral_api.system.files import is_root
from mistral_api.system.processes import run_command

log = logging.getLogger(__name__)

ACCOUNT_NAME = "mistral-api"
USERADD_TIMEOUT_SECONDS = 30.0
# Nothing else of our environment reaches PostgreSQL: no PG* variables, no secrets.
_PASSED_VARIABLES = ("PATH", "SYSTEMROOT", "TEMP", "TMP")


@dataclass(frozen=True, slots=True)
class Account:
    """The account of PostgreSQL; ``uid`` and ``gid`` are None for the account of this process."""

    uid: int | None = None
    gid: int | None = None

    def run(self, command: Sequence[str], seconds: float, stdin_text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as the account, with this text as its input. Raises subprocess.TimeoutExpired, OSError."""
        return run_command(
            command,
            seconds,
            env={name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ} | {"LC_ALL": "C"},
            cwd=Path(sys.executable).anchor,
            input=stdin_text,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            start_new_session=True,  # Ctrl-C, or a terminal that is closed, must not end initdb half-way
        )

    def chown(self, path: Path) -> None:
        """Make the account the owner of a path that we have just made."""
        if self.uid is not None and self.gid is not None and sys.platform != "win32":
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether the account may pass through every folder on the way to (and including) this one."""
        return self.uid is None or all(self._may(folder, stat.S_IXUSR) for folder in (path, *path.parents))

    def can_read(self, path: Path) -> bool:
        """Whether the account may read a file, once it has reached the file's folder."""
        return self.uid is None or self._may(path, stat.S_IRUSR)

    def _may(self, path: Path, owner_bit: int) -> bool:
        """Check the permission bit that counts for the account: as owner, as group, or as anyone else."""
        status = path.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & owner_bit)
        return bool(status.st_mode & (owner_bit >> 3 if status.st_gid == self.gid else owner_bit >> 6))


def account_for_postgres() -> Account:
    """Return this process's account, or for root the account ``mistral-api``, created where it is missing.

    Raises StartError where it cannot be created.
    """
    if sys.platform == "win32" or not is_root():
        return Account()
    import pwd  # noqa: PLC0415 - POSIX only

    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        _create_account()
        entry = pwd.getpwnam(ACCOUNT_NAME)
    return Account(entry.pw_uid, entry.pw_gid)


def _create_account() -> None:
    """Create the system account. Raises StartError."""
    advice = (
        "PostgreSQL does not run as root: start as another user, set DATABASE_URL, "
        f"or make a system account named {ACCOUNT_NAME}"
    )
    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if useradd is None:
        raise StartError(f"{advice}; the program useradd, which could make it, is missing.")
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command = [useradd, *options, "--shell", "/usr/sbin/nologin", ACCOUNT_NAME]
    done = Account().run(command, USERADD_TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise StartError(f"{advice}; useradd could not make it: {done.stderr.strip()}.")
    log.warning(
        "made the system account %s, since PostgreSQL refuses to run as root; when you no longer want it, "
        "`userdel %s` removes it (docs/upgrade.md)",
        ACCOUNT_NAME,
        ACCOUNT_NAME,
    )
