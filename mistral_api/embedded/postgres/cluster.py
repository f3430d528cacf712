"""A database cluster: created by initdb, started and stopped by pg_ctl (PostgreSQL's reference pages)."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from mistral_api.embedded.postgres.files import Layout, package_version
from mistral_api.embedded.postgres.postmaster import (
    PID_FILE,
    recorded_pid,
    remove_misleading_lock_files,
    running_postmaster,
)
from mistral_api.errors import StartError
from mistral_api.system.addresses import claim_address, connect_unix
from mistral_api.system.files import move_file, remove_file, replace_file
from mistral_api.system.processes import ProcessIdentity, end_with_this_process

DATABASE = "mistral"
# The role that initdb makes, and that only sets things up; and the application's own, which is no superuser. No schema
# must have its name: a role's search path begins with the schema of its name.
SUPERUSER, APPLICATION_ROLE = "mistral", "mistral_server"
SOCKET_PORT = 5432
SOCKET = f".s.PGSQL.{SOCKET_PORT}"
SOCKET_LOCK = f"{SOCKET}.lock"
SOCKET_SECONDS = 2.0
STOP_SECONDS = 30

# Connections that are enough for one API process, the one that delivers, and some commands.
FEW_CONNECTIONS = 50

# Bounded logs without anything a user wrote: no statements, no details of rows.
_CONFIGURATION = {
    "logging_collector": "on",
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


class Cluster:
    """The cluster of one layout. The caller holds the layout's lock."""

    def __init__(self, layout: Layout, connections: int = FEW_CONNECTIONS) -> None:
        """``connections``: how many a server that this object starts takes at least."""
        self._layout = layout
        self._connections = max(FEW_CONNECTIONS, connections)

    @property
    def exists(self) -> bool:
        """Whether initdb has finished here."""
        return (self._layout.data / "PG_VERSION").exists()

    def url(self) -> str:
        """Return the SQLAlchemy URL of the application's database for its own role, with the password."""
        return self._url(APPLICATION_ROLE, self._layout.application_password_file, DATABASE)

    def superuser_url(self, database: str = DATABASE) -> str:
        """Return the SQLAlchemy URL of a database in the cluster for the superuser, with the password."""
        return self._url(SUPERUSER, self._layout.password_file, database)

    def _url(self, role: str, password_file: Path, database: str) -> str:
        password = quote(password_file.read_text(encoding="utf-8").strip(), safe="")
        if sys.platform == "win32":
            return f"postgresql+psycopg2://{role}:{password}@127.0.0.1:{self._port()}/{database}"
        folder = quote(str(self._layout.socket_folder), safe="/")
        return f"postgresql+psycopg2://{role}:{password}@/{database}?host={folder}&port={SOCKET_PORT}"

    def _port(self) -> int:
        return int(self._layout.port_file.read_text(encoding="utf-8"))

    def initialise(self, seconds: float) -> None:
        """Create the cluster under another name and rename it: it is there whole or not at all. Raises StartError."""
        layout = self._layout
        new_data = layout.base / "data.new"
        if new_data.exists():
            shutil.rmtree(new_data)
        new_data.mkdir(mode=0o700)
        layout.account.chown(new_data)
        password_file = _write_password(layout)
        options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += ["--auth=scram-sha-256", f"--pwfile={password_file}", f"--username={SUPERUSER}", "--no-instructions"]
        try:
            self._run("initdb", ["-D", str(new_data), *options], seconds)
        finally:
            password_file.unlink()
        move_file(new_data, layout.data)

    @property
    def has_password(self) -> bool:
        """Whether we have the password. We lose it when a DATA_DIR is deleted whose data lie elsewhere."""
        return self._layout.password_file.exists()

    @property
    def has_application_password(self) -> bool:
        """Whether we have the password of the application's role."""
        return self._layout.application_password_file.exists()

    def write_application_password(self, password: str) -> None:
        """Keep the password of the application's role, instead of a former one."""
        replace_file(self._layout.application_password_file, password)

    def renew_password(self, seconds: float) -> None:
        """Set another password, in PostgreSQL's single-user mode; the server must not run. Raises StartError.

        Whoever may write the data may do that (reference page of postgres, "Single-User Mode").
        """
        password = secrets.token_urlsafe(32)
        new = self._layout.password_file.with_suffix(".new")
        new.unlink(missing_ok=True)
        _write_private(new, password)
        command = ["--single", "-D", str(self._layout.data), "postgres"]
        self._run("postgres", command, seconds, f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'\n")
        move_file(new, self._layout.password_file)

    def require_our_version(self) -> None:
        """Refuse the data of another major version, which PostgreSQL would not read. Raises StartError."""
        found = (self._layout.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        ours = package_version().split(".")[0]
        if found != ours:
            raise StartError(
                f"'{self._layout.data}' was made by PostgreSQL {found} and this is {ours}: dump it with the old "
                "version and restore it, or choose another DATA_DIR."
            )

    @property
    def running(self) -> bool:
        """Whether a server runs on the cluster."""
        return self.postmaster() is not None

    def postmaster(self) -> ProcessIdentity | None:
        """Return the first process of the server that runs on the cluster, or None."""
        return running_postmaster(self._layout.data)

    def start(self, seconds: float) -> None:
        """Start the server, which must not run, and wait until it takes connections. Raises StartError."""
        log = self._layout.start_log
        try:
            self._refuse_foreign_server()
            self._configure()
            remove_misleading_lock_files(self._layout.data, self._layout.socket_folder / SOCKET_LOCK)
            remove_file(log)
        except OSError as error:
            raise StartError(
                f"The embedded PostgreSQL: '{error.filename}' cannot be changed: {error.strerror}."
            ) from error
        options = ["-D", str(self._layout.data), "-l", str(log), "-w", "-t", str(int(seconds))]
        try:
            self._run("pg_ctl", ["start", *options], seconds + 5)
        except StartError as error:
            raise StartError(f"{error} {self._start_log_tail()}".strip()) from error
        pid = recorded_pid(self._layout.data / PID_FILE)
        if pid is not None:
            end_with_this_process(pid)

    def _refuse_foreign_server(self) -> None:
        """Refuse a cluster whose server runs where we do not see its processes, as in another container: StartError."""
        if sys.platform == "win32":
            return
        try:
            connect_unix(str(self._layout.socket_folder / SOCKET), SOCKET_SECONDS).close()
        except OSError:  # nobody listens
            return
        raise StartError(
            f"DATA_DIR: a PostgreSQL of another container runs on '{self._layout.data}'; stop that server first, or "
            "choose another DATA_DIR."
        )

    def stop(self) -> None:
        """Stop the server: open transactions are rolled back, nothing committed is lost. Raises StartError."""
        for mode in ("fast", "immediate"):
            options = ["-D", str(self._layout.data), "-m", mode, "-w", "-t", str(STOP_SECONDS)]
            command = [self._program("pg_ctl"), "stop", *options]
            if self._layout.account.run(command, STOP_SECONDS + 5).returncode == 0 or not self.running:
                return
        raise StartError(f"The embedded PostgreSQL in '{self._layout.data}' does not stop.")

    def _configure(self) -> None:
        """Write our configuration: at each start, since folders may have been moved."""
        settings = _CONFIGURATION | {"max_connections": str(self._connections)}
        if sys.platform == "win32":
            settings |= {"listen_addresses": "127.0.0.1", "port": str(_claim_port(self._layout.port_file))}
        else:
            settings |= {"listen_addresses": "", "port": str(SOCKET_PORT)}
            settings["unix_socket_directories"] = str(self._layout.socket_folder)
            settings["unix_socket_permissions"] = "0700"
        ours = self._layout.data / "mistral.conf"
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()]
        ours.write_text("".join(lines), encoding="utf-8")
        self._layout.account.chown(ours)
        main = self._layout.data / "postgresql.conf"
        if "mistral.conf" not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write("\ninclude 'mistral.conf'\n")

    def _start_log_tail(self) -> str:
        """Return the last lines that the server wrote while it failed to start."""
        try:
            lines = self._layout.start_log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "It said: " + " / ".join(line.strip() for line in lines[-3:])

    def _program(self, name: str) -> str:
        return str(self._layout.binaries / name)

    def _run(self, program: str, arguments: Sequence[str], seconds: float, stdin_text: str = "") -> None:
        try:
            done = self._layout.account.run([self._program(program), *arguments], seconds, stdin_text)
        except subprocess.TimeoutExpired as error:
            raise StartError(f"{program} did not finish in {seconds:.0f} s.") from error
        if done.returncode != 0:
            output = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
            raise StartError(f"The embedded PostgreSQL: {program} failed: {output}.")


def _write_password(layout: Layout) -> Path:
    """Choose the password and write it to two files: ours, and one of the account for initdb. Return the latter."""
    password = secrets.token_urlsafe(32)
    layout.password_file.unlink(missing_ok=True)
    _write_private(layout.password_file, password)
    for_initdb = layout.base / "password.initdb"
    for_initdb.unlink(missing_ok=True)
    _write_private(for_initdb, password)
    layout.account.chown(for_initdb)
    return for_initdb


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _claim_port(port_file: Path) -> int:
    """Choose a free loopback port, and write it to the file that other processes read it from.

    It is the former one where that is free: processes that use the server know no other.
    """
    port = _free_port(_former_port(port_file)) or _free_port(0)
    port_file.write_text(str(port), encoding="utf-8")
    return port


def _former_port(port_file: Path) -> int:
    try:
        return int(port_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def _free_port(port: int) -> int:
    """Return the port if nobody uses it, any free one for 0, and 0 where it is in use."""
    with socket.socket() as probe:
        claim_address(probe)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return 0
        free: int = probe.getsockname()[1]
        return free
