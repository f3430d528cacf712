"""Under which account the services run: that of whoever installs them, or for the system one without privileges."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from mistral_api.embedded.postgres import EmbeddedPostgresError
from mistral_api.embedded.postgres.account import ACCOUNT_NAME, account_for_postgres
from mistral_api.registration.errors import RegistrationError

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
