"""The embedded PostgreSQL as its users see it: a URL, and a stop that only has an effect in the owner's process.

The owner is the process that started the server, known by its number and start time. When it has died without stopping
the server, the next process that comes is the owner, or one that looks after it (:meth:`EmbeddedPostgres.watch`).
An owner that stops leaves the server to those that look after it: the last of them stops it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
from filelock import FileLock, Timeout

from mistral_api.embedded.postgres.application_role import ensure_application_database
from mistral_api.embedded.postgres.cluster import FEW_CONNECTIONS, Cluster
from mistral_api.embedded.postgres.files import (
    SYSTEM_BASE,
    Layout,
    has_embedded_postgres,
    make_home,
    prepare_layout,
)
from mistral_api.embedded.postgres.watcher import EmbeddedHealth, PostgresWatcher
from mistral_api.errors import StartError
from mistral_api.system.process_lock import ProcessLock
from mistral_api.system.processes import ProcessIdentity, identity_of, is_alive, outlive_this_process

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.1
# For a start after a crash, which replays what was written since the last checkpoint (five minutes at most).
RESTART_SECONDS = 60.0
# What PostgreSQL says while processes of a killed postmaster still end.
_STILL_ENDING = "shared memory block"


class EmbeddedPostgres:
    """A running embedded PostgreSQL.

    ``url`` is SQLAlchemy's, with the password, for the application's role; ``superuser_url`` for the superuser.
    """

    def __init__(self, layout: Layout, cluster: Cluster, *, owned: bool) -> None:
        """``owned``: whether this process is the owner."""
        self.url = cluster.url()
        self.superuser_url = cluster.superuser_url()
        self.owned = owned
        self._layout = layout
        self._cluster = cluster
        self._process = os.getpid()
        self._watcher: PostgresWatcher | None = None
        self._presence: ProcessLock | None = None

    def watch(self) -> None:
        """Look after the server from now on: start it again when it dies, and keep it when its owner stops."""
        if os.getpid() != self._process:  # we are a fork of the owner
            self._process, self.owned = os.getpid(), False
        try:
            self._presence = ProcessLock(self._layout.home)
        except OSError as error:
            log.warning("the embedded PostgreSQL stops with its owner, also while we use it: %s", error)
        self._watcher = PostgresWatcher(self._cluster.postmaster, self._restart, self._layout.data / "log")
        self._watcher.start()

    def health(self) -> EmbeddedHealth | None:
        """Return how the server is looked after, or None where this process does not do that."""
        return None if self._watcher is None else self._watcher.health()

    def _restart(self) -> None:
        """Start the server, unless another process has done so. Raises StartError."""
        with _locked(self._layout.home, RESTART_SECONDS):
            if not self._cluster.running:
                self._cluster.start(RESTART_SECONDS)
            if not _has_live_owner(self._layout.owner_file):
                _write_owner(self._layout.owner_file)
                self.owned = True

    def stop(self, *, deadline_seconds: float = 60) -> None:
        """Stop the server if this process is the last to look after it. The second time do nothing. Raises StartError.

        A process that does not look after it stops it if it is the owner and nobody looks after it.
        """
        if os.getpid() != self._process or not (self.owned or self._watcher):
            return
        if self._watcher is not None:
            self._watcher.close()
        with _locked(self._layout.home, deadline_seconds):
            others = self._leave()
            if others:
                outlive_this_process()
            if self.owned or (self._watcher is not None and not _has_live_owner(self._layout.owner_file)):
                if not others and self._cluster.running:
                    self._cluster.stop()
                self._layout.owner_file.unlink(missing_ok=True)
        self.owned, self._watcher = False, None

    def _leave(self) -> bool:
        """Do not count as one that looks after the server any more; return whether others do."""
        try:
            presence = self._presence or ProcessLock(self._layout.home)
            others = not presence.is_alone()
            presence.close()
        except OSError as error:
            log.warning("the embedded PostgreSQL is stopped without asking who else uses it: %s", error)
            return False
        return others


def start_embedded_postgres(
    data_dir: Path,
    *,
    connections: int = FEW_CONNECTIONS,
    deadline_seconds: float = 60,
    system_base: Path = SYSTEM_BASE,
) -> EmbeddedPostgres:
    """Return the server of this DATA_DIR, started if it does not run. Raises StartError.

    ``connections``: how many one that is started takes at least.
    """
    home = make_home(data_dir.absolute())
    with _locked(home, deadline_seconds):
        layout = prepare_layout(home, system_base)
        cluster = Cluster(layout, connections)
        if not cluster.exists:
            log.info("making the embedded PostgreSQL in %s", layout.base)
            cluster.initialise(deadline_seconds)
        cluster.require_our_version()
        if not cluster.has_password:
            _renew_password(layout, cluster, deadline_seconds)
        _start_until_connected(layout, cluster, deadline_seconds)
        owned = not _has_live_owner(layout.owner_file)
        if owned:
            _write_owner(layout.owner_file)
    return EmbeddedPostgres(layout, cluster, owned=owned)


def embedded_postgres_url(data_dir: Path) -> str:
    """Return the URL of the server of this DATA_DIR, which another process has made, starts and looks after.

    Raises StartError where there is none, or it belongs to another account.
    """
    if not has_embedded_postgres(data_dir):
        raise StartError(f"There is no embedded PostgreSQL in '{data_dir}'.")
    return Cluster(prepare_layout(make_home(data_dir.absolute()))).url()


def running_embedded_postgres(data_dir: Path) -> str | None:
    """Return the URL of the server of this DATA_DIR, or None where none runs. No database is made or started.

    Raises StartError where it belongs to another account.
    """
    if not has_embedded_postgres(data_dir):
        return None
    cluster = Cluster(prepare_layout(make_home(data_dir.absolute())))
    return cluster.url() if cluster.running else None


def _has_live_owner(owner_file: Path) -> bool:
    try:
        recorded = json.loads(owner_file.read_text(encoding="utf-8"))
        owner = ProcessIdentity(int(recorded["pid"]), recorded["started"])
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return is_alive(owner)


def _write_owner(owner_file: Path) -> None:
    """Make this process the owner."""
    owner_file.write_text(json.dumps(identity_of(os.getpid())._asdict()), encoding="utf-8")


@contextlib.contextmanager
def _locked(home: Path, seconds: float) -> Iterator[None]:
    """Let one process at a time make, start or stop the server. Raises StartError."""
    try:
        with FileLock(home / "lock", timeout=seconds, mode=0o600):
            yield
    except Timeout as error:
        raise StartError(
            f"Another process has been starting or stopping the PostgreSQL in '{home}' for {seconds:.0f} s."
        ) from error


def _renew_password(layout: Layout, cluster: Cluster, seconds: float) -> None:
    """Set another password for data whose password has been deleted. The alternative is to lose the data."""
    log.warning("the password of the data in %s is gone; they get another one", layout.data)
    if cluster.running:
        cluster.stop()
    cluster.renew_password(seconds)


def _start_until_connected(layout: Layout, cluster: Cluster, seconds: float) -> None:
    """Start the server where it does not run, until it accepts a connection. Raises StartError.

    A server that has just been killed counts as running for as long as its process exists, and its others may take a
    moment longer to end.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if not cluster.running:
                cluster.start(seconds)
                layout.owner_file.unlink(missing_ok=True)
            ensure_application_database(cluster)
        except StartError as error:
            if _STILL_ENDING not in str(error) or time.monotonic() >= deadline:
                raise
        except (psycopg2.OperationalError, UnicodeDecodeError) as error:  # in the encoding of the system
            if time.monotonic() >= deadline:
                sentence = str(error).strip().splitlines()[0]
                raise StartError(f"The embedded PostgreSQL does not let us in: {sentence}.") from error
        else:
            return
        time.sleep(RETRY_SECONDS)
