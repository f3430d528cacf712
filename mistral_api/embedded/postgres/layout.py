"""Where the embedded PostgreSQL lies: under DATA_DIR, or where its account can reach it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mistral_api.data_dir import is_root, make_data_dir
from mistral_api.embedded.postgres.account import Account, account_for_postgres
from mistral_api.embedded.postgres.binaries import reachable_binaries
from mistral_api.embedded.postgres.errors import EmbeddedPostgresError

# For a server started as root whose DATA_DIR PostgreSQL's account cannot reach.
SYSTEM_BASE = Path("/var/lib/mistral-api")
# A socket's path has at most 107 bytes (sun_path in unix(7)); PostgreSQL adds "/.s.PGSQL.5432".
SOCKET_PATH_BYTES = 107 - len("/.s.PGSQL.5432.lock")


@dataclass(frozen=True, slots=True)
class Layout:
    """Every place of one embedded PostgreSQL. ``home`` is ours alone; ``base`` is its account's."""

    home: Path
    base: Path
    socket_folder: Path
    binaries: Path
    account: Account

    @property
    def data(self) -> Path:
        """The database cluster."""
        return self.base / "data"

    @property
    def start_log(self) -> Path:
        """What the server said while it started."""
        return self.base / "start.log"

    @property
    def password_file(self) -> Path:
        """The superuser's password, readable to us alone."""
        return self.home / "password"

    @property
    def port_file(self) -> Path:
        """The loopback port, on systems where a socket folder protects nothing (Windows)."""
        return self.home / "port"

    @property
    def owner_file(self) -> Path:
        """Which process stops the server."""
        return self.home / "owner.json"


def make_home(data_dir: Path) -> Path:
    """The folder of our own files, made if need be; the lock lies in it. Raises EmbeddedPostgresError."""
    home = data_dir / "postgres"
    try:
        make_data_dir(data_dir)
        if not home.exists():
            _require_ours(data_dir)  # an account's, where no PostgreSQL has been started yet
        home.mkdir(exist_ok=True, mode=0o711 if is_root() else 0o700)
    except OSError as error:
        raise _unwritable(home, error) from error
    _require_ours(home)
    return home


def _require_ours(folder: Path) -> None:
    """Root must not make a second database, and a second password, beside those of an account's own server."""
    owner = folder.stat().st_uid
    if is_root() and owner != 0:
        raise EmbeddedPostgresError(
            f"DATA_DIR: '{folder}' belongs to the account with the number {owner}: "
            "run this as that account, not as root."
        )


def plan_layout(home: Path, system_base: Path = SYSTEM_BASE) -> Layout:
    """Decide where everything lies and make the folders; the caller holds the lock of ``home``.

    Raises EmbeddedPostgresError.
    """
    account = account_for_postgres()
    try:
        base = _base(home, account, system_base)
        binaries = reachable_binaries(account, system_base)
        return Layout(home, base, _socket_folder(base, account), binaries, account)
    except OSError as error:
        raise _unwritable(home, error) from error


def _unwritable(home: Path, error: OSError) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"DATA_DIR: the embedded PostgreSQL cannot be kept in '{home}': {error.strerror} ({error.filename})."
    )


def _base(home: Path, account: Account, system_base: Path) -> Path:
    """The folder of the account's own files."""
    if account.uid is None:
        return home
    if account.can_reach(home):
        return _own_folder(home / "server", account)
    system_base.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not account.can_reach(system_base):
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and its account can reach neither '{home}' nor '{system_base}': "
            "choose another DATA_DIR, start as another user, or set DATABASE_URL."
        )
    base = _own_folder(system_base / _short_name(home), account)
    (home / "location.txt").write_text(f"{base}\n", encoding="utf-8")
    return base


def _short_name(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:16]


def _own_folder(folder: Path, account: Account) -> Path:
    """A folder that only the account (and root) enters; made, or found as such."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _require_own(folder, account)
    else:
        account.give(folder)
    return folder


def _require_own(folder: Path, account: Account) -> None:
    """Refuse a folder that somebody else has put there, or can enter."""
    found = folder.lstat()
    owner = os.geteuid() if account.uid is None and hasattr(os, "geteuid") else account.uid
    if not stat.S_ISDIR(found.st_mode) or (owner is not None and found.st_uid != owner):
        raise EmbeddedPostgresError(f"'{folder}' belongs to somebody else; remove it, or choose another DATA_DIR.")


def _socket_folder(base: Path, account: Account) -> Path:
    """Beside the data, or where that path is too long for a socket, in the folder for temporary files."""
    folder = base / "socket"
    if len(os.fsencode(folder)) > SOCKET_PATH_BYTES:
        folder = Path(tempfile.gettempdir()) / f"mistral-api-{_short_name(base)}"
    return _own_folder(folder, account)
