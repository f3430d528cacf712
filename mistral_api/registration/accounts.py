"""Under which account the services run: that of whoever installs them, or for the system one without privileges."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from mistral_api.embedded.postgres import EmbeddedPostgresError
from mistral_api.embedded.postgres.account import ACCOUNT_NAME, account_for_postgres
from mistral_api.registration.errors import RegistrationError

# Who owns nothing: stands for an account that is still to be made.
_NOBODY = 65534
# Groups that may use graphics cards, on the distributions that have them.
_DEVICE_GROUPS = ("video", "render")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """One account of the system; ``made`` is False for one that the installation has yet to make."""

    name: str
    uid: int
    gid: int
    home: str
    made: bool = True

    @property
    def groups(self) -> list[int]:
        """Every group it is in, by number."""
        return os.getgrouplist(self.name, self.gid) if self.made else [self.gid]


def own_account() -> ServiceAccount:
    """The account of this process."""
    entry = pwd.getpwuid(os.geteuid())
    return ServiceAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def account_named(name: str) -> ServiceAccount:
    """An account for a system service. Raises RegistrationError for root, and for one that is missing.

    Our own account need not exist yet.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        if name == ACCOUNT_NAME:
            return ServiceAccount(name, _NOBODY, _NOBODY, "/nonexistent", made=False)
        raise RegistrationError(f"There is no account named '{name}' on this machine.") from error
    if entry.pw_uid == 0:
        raise RegistrationError("The services do not run as root: give another --account, or none for our own.")
    return ServiceAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def made(account: ServiceAccount) -> ServiceAccount:
    """The account, made if need be (by root). Raises RegistrationError."""
    if account.made:
        return account
    try:
        account_for_postgres()  # our account and that of an embedded PostgreSQL under root are the same
    except EmbeddedPostgresError as error:
        raise RegistrationError(f"The account '{account.name}' cannot be made: {error}") from error
    return account_named(account.name)


def device_groups() -> list[str]:
    """The groups that a service needs for a graphics card; systemd refuses names that do not exist."""
    known = {entry.gr_name for entry in grp.getgrall()}
    return [name for name in _DEVICE_GROUPS if name in known]
