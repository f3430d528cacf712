"""Under which account it runs.

What keeps the embedded PostgreSQL from running.

Under which account PostgreSQL runs: ours, or, since it refuses root, one without privileges.
"""

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
from typing import Any

from mistral_api.errors import StartError
from mistral_api.system.files import is_root

log = logging.getLogger(__name__)

ACCOUNT_NAME = "mistral-api"
USERADD_SECONDS = 30.0
# Nothing else of our environment reaches PostgreSQL: no PG* variables, no secrets.
_KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "TEMP", "TMP")


@dataclass(frozen=True, slots=True)
class Account:
    """Who PostgreSQL runs as; ``uid`` and ``gid`` are None for the account of this process."""

    uid: int | None = None
    gid: int | None = None

    def run(self, command: Sequence[str], seconds: float, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as the account, ``typed`` as its input. Raises subprocess.TimeoutExpired, OSError."""
        options: dict[str, Any] = {}
        if self.uid is not None:
            options = {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.run(
            command,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {"LC_ALL": "C"},
            cwd=Path(sys.executable).anchor,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            **options,
        )

    def chown(self, path: Path) -> None:
        """Make the account the owner of something we have just made."""
        if self.uid is not None and self.gid is not None and sys.platform != "win32":
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether the account may pass through every folder on the way to (and including) this one."""
        return self.uid is None or all(self._may(folder, stat.S_IXUSR) for folder in (path, *path.parents))

    def can_read(self, path: Path) -> bool:
        """Whether the account may read a file, once it has reached its folder."""
        return self.uid is None or self._may(path, stat.S_IRUSR)

    def _may(self, path: Path, owner_bit: int) -> bool:
        """The permission bit that counts for the account: as owner, as group, or as anyone else."""
        found = path.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & owner_bit)
        return bool(found.st_mode & (owner_bit >> 3 if found.st_gid == self.gid else owner_bit >> 6))


def account_for_postgres() -> Account:
    """This process's account, or for root the account ``mistral-api``, made if need be."""
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
    """Make the system account. Raises StartError where that cannot be done."""
    advice = (
        "PostgreSQL does not run as root: start as another user, set DATABASE_URL, "
        f"or make a system account named {ACCOUNT_NAME}"
    )
    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if useradd is None:
        raise StartError(f"{advice}; the program useradd, which could make it, is missing.")
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command = [useradd, *options, "--shell", "/usr/sbin/nologin", ACCOUNT_NAME]
    done = Account().run(command, USERADD_SECONDS)
    if done.returncode != 0:
        raise StartError(f"{advice}; useradd could not make it: {done.stderr.strip()}.")
    log.info("made the system account %s for the embedded PostgreSQL", ACCOUNT_NAME)
