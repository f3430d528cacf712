"""The accounts that the services on Linux run as, and DATA_DIR, which is the account's own.

A user's units run as that user, units of the system under an account without privileges.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("These accounts are Linux'.")

import grp
import os
import pwd
from pathlib import Path

from mistral_api.embedded.postgres.account import ACCOUNT_NAME, account_for_postgres
from mistral_api.errors import StartError
from mistral_api.registration.service import RegistrationError
from mistral_api.system.files import is_root, make_data_dir

# Groups that may use graphics cards, on the distributions that have them.
DEVICE_GROUPS = ("video", "render")
# The folders of DATA_DIR that the supervisor's unit may write to, and those that it cannot see.
WRITTEN_BY_SUPERVISOR = ("run", "logs", "slots", "embedding-server-slots", "cache")
UNSEEN_BY_SUPERVISOR = ("journal", "postgres")
# Those that must be there before the unit starts: systemd opens and hides only what exists, and the supervisor's unit,
# which starts first, cannot make them. The embedded PostgreSQL makes its own.
_MADE_BEFORE = (*WRITTEN_BY_SUPERVISOR, "journal")


def own_account() -> pwd.struct_passwd:
    """Return the account of this process. Raises RegistrationError where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise RegistrationError(f"The account with the number {os.geteuid()} has no name on this machine.") from error


def system_account(name: str, *, make: bool = False) -> pwd.struct_passwd:
    """Return an account for units of the system; with ``make``, root makes our own where it is missing.

    Raises RegistrationError for root, and for an account that is missing or cannot be made.
    """
    try:
        if make and name == ACCOUNT_NAME:
            account_for_postgres()  # an embedded PostgreSQL under root has the same account
        account = pwd.getpwnam(name)
    except StartError as error:
        raise RegistrationError(f"The account '{name}' cannot be made: {error}") from error
    except KeyError as error:
        raise RegistrationError(f"There is no account named '{name}' on this machine.") from error
    if account.pw_uid == 0:
        raise RegistrationError("The services do not run as root: give another --account, or none for our own.")
    return account


def can_become(name: str) -> bool:
    """Whether this process can run a rehearsal as the account. Nobody can while our own account is not made yet."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return name != ACCOUNT_NAME and is_root()
    return is_root()


def device_groups() -> tuple[str, ...]:
    """Return the groups that a service needs for a graphics card; systemd refuses names that do not exist."""
    existing = {entry.gr_name for entry in grp.getgrall()}
    return tuple(name for name in DEVICE_GROUPS if name in existing)


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


def make_folders_for(account: pwd.struct_passwd, data_dir: Path) -> None:
    """Make the folders of DATA_DIR that the unit of the supervisor needs, for the account. Raises RegistrationError."""
    for folder in (data_dir / name for name in _MADE_BEFORE):
        try:
            folder.mkdir(mode=0o700)
            _give_folder(account, folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise RegistrationError(f"DATA_DIR: '{folder}' cannot be made: {error.strerror}.") from error


def _give_folder(account: pwd.struct_passwd, folder: Path) -> None:
    """Give a folder that root has just made to the account. Nobody may put a link in its place before that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise RegistrationError(f"DATA_DIR: '{folder}' was replaced by somebody else; choose another place.")
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)
