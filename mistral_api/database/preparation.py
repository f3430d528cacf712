"""The database at the start: looked at, migrated and let in, now or as soon as it can be reached.

A server whose database is away starts all the same. Until the database has been found to be ours, and of this version,
no other part of the server may use it: a row must go neither into another program's tables nor into a schema that is
not there yet. :meth:`DatabasePreparation.guard` refuses connections until then, at once and with the reason. The log
says once what is away, and a thread tries again until it is there.
"""

from __future__ import annotations

import enum
import importlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.address import shown_address
from mistral_api.database.deadlines import answer_within
from mistral_api.database.errors import DatabaseNotPrepared, MigrationFailed, error_message, is_final, unusable_sentence
from mistral_api.database.ownership import require_own_tables
from mistral_api.database.revisions import newest_revision, refuse_newer
from mistral_api.errors import StartError
from mistral_api.system.command_names import installed_command

log = logging.getLogger(__name__)

# How long a start waits for a connection. A name server that does not answer may take longer.
START_SECONDS = 6.0
# A database that does not answer the first look at it in this time counts as away.
LOOK_SECONDS = 5.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 5.0
# What only the operator can mend is tried less often: a server may lock a role out after some wrong passwords.
REFUSED_RETRY_SECONDS = 15.0
# How long requests that began before the API keys were known may still run before anything can be read.
SETTLE_SECONDS = 1.0
CLOSE_SECONDS = 1.0


class _State(enum.Enum):
    """OPEN: nobody has asked for a preparation, or it is done. CLOSED: the database may not be used yet. KEYS_ONLY: it
    may, by what reads the API keys."""

    OPEN = enum.auto()
    CLOSED = enum.auto()
    KEYS_ONLY = enum.auto()


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why the database cannot be used, in one line. ``final``: how a start ends where only the operator can mend it."""

    reason: str
    final: StartError | None = None


class DatabasePreparation:
    """Prepares the database of an engine. Owns its thread until :meth:`close`."""

    def __init__(self, engine: Engine, guarded: Engine) -> None:
        """``engine`` is for the preparation alone; ``guarded`` is another one to the same database, for all others."""
        self._engine = engine
        self._address = shown_address(engine.url)
        self._state = _State.OPEN
        self._problem = _Problem(f"{self._address}: it has not answered yet")
        self._announced: bool | None = None
        self._steps: list[Callable[[Engine], None]] = []
        self._load_keys: Callable[[], bool] = lambda: True
        # While the start waits for the first attempt, and what it ends with.
        self._starting = False
        self._failure: StartError | None = None
        self._connected, self._attempted, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._process, self._lock = os.getpid(), threading.RLock()
        self._thread: threading.Thread | None = None
        self.guard(guarded)

    @property
    def is_open(self) -> bool:
        """Whether the database may be used by everything."""
        return self._state is _State.OPEN

    def guard(self, engine: Engine, *, for_keys: bool = False) -> Engine:
        """Return an engine that makes no connections until the database is prepared. ``for_keys``: it reads the API
        keys."""

        @event.listens_for(engine, "do_connect")
        def _refuse_until_prepared(*_arguments: object) -> None:
            if self._state is _State.OPEN or (for_keys and self._state is _State.KEYS_ONLY):
                return
            raise DatabaseNotPrepared(self._problem.reason)

        return engine

    def begin(self) -> None:
        """Prepare the database, or start to try it again and again. Raises StartError where no waiting would help.

        A database that cannot be reached within START_SECONDS is waited for by a thread; a migration that has begun is
        waited for here.
        """
        self._state, self._starting = _State.CLOSED, True
        self.ensure_running()
        if self._connected.wait(START_SECONDS):
            self._attempted.wait()
        with self._lock:
            self._starting = False
            failure = self._failure
        if failure is not None:
            self.close()
            raise failure
        self._announce()

    def ensure_running(self) -> None:
        """Start the thread where the database is still away and none runs, such as in a process that was forked."""
        if self._process != os.getpid():  # the lock may have been held by a thread that is not in this process
            self._process, self._lock = os.getpid(), threading.RLock()
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if self._state is _State.OPEN or running or self._closing.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="database-preparation", daemon=True)
            self._thread.start()

    def then(self, step: Callable[[Engine], None]) -> None:
        """Have a step done once the schema is there, before anything else uses the database: now, or later.

        It gets an engine that is not guarded. A step that raises SQLAlchemyError is done again. One that is done now
        may raise StartError.
        """
        with self._lock:
            if self._state is not _State.OPEN:
                self._steps.append(step)
                return
        try:
            step(self._engine)
        except SQLAlchemyError as error:  # the database has gone just now
            self._steps.append(step)
            self._note(_Problem(error_message(error)))
            self.ensure_running()
        finally:
            self._engine.dispose()

    def load_keys_by(self, load: Callable[[], bool]) -> None:
        """Have the API keys loaded before anything else may use the database. ``load`` returns whether it could."""
        self._load_keys = load

    def close(self) -> None:
        """End the thread. An attempt that still runs is left to its own deadline."""
        self._closing.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while not self._closing.is_set() and not self._attempt() and self._failure is None:
            self._closing.wait(REFUSED_RETRY_SECONDS if self._problem.final else retry_seconds)
            retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)

    def _attempt(self) -> bool:
        """Prepare the database once. Return whether it is open now."""
        try:
            self._prepare()
            self._open()
        except StartError as error:
            self._note(_Problem(str(error), error))
        except (MigrationFailed, SQLAlchemyError) as error:
            self._note(_Problem(error_message(error), unusable(error) if is_final(error) else None))
        except Exception as error:  # the thread must go on, or the database would stay closed
            log.error("the database cannot be prepared", exc_info=error)
            self._note(_Problem(f"{self._address}: {type(error).__name__}"))
        finally:
            self._engine.dispose()  # after a failover the next connection leads to another server
            self._connected.set()
            self._attempted.set()
        return self.is_open

    def _prepare(self) -> None:
        """Look at the database, and migrate it. Raises StartError, MigrationFailed, SQLAlchemyError."""
        with self._engine.begin() as connection:
            self._connected.set()
            prepare_schema(connection)

    def _open(self) -> None:
        """Let everything use the database, at the start at once, since nothing uses it yet."""
        while self._steps and not self._closing.is_set():
            self._steps[0](self._engine)
            self._steps.pop(0)
        with self._lock:
            if self._starting:
                self._state = _State.OPEN
                return
            self._state = _State.KEYS_ONLY
        if self._load_keys():
            self._closing.wait(SETTLE_SECONDS)
            self._state = _State.OPEN
            log.info("the database answers, and gets what has waited: %s", self._address)
        else:
            self._note(_Problem(f"{self._address}: the API keys cannot be read yet"))

    def _note(self, problem: _Problem) -> None:
        """Note why the database cannot be used now, for the start to fail with, or for the log."""
        with self._lock:
            self._state, self._problem = _State.CLOSED, problem
            if self._starting:
                self._failure = problem.final
                return
        self._announce()

    def _announce(self) -> None:
        """Say once what is the matter, and again when what was away is refused, or the reverse."""
        refused = self._problem.final is not None
        if self.is_open or self._closing.is_set() or self._announced == refused:
            return
        self._announced = refused
        if refused:
            log.error("answers go on, and records wait, until this is mended: %s", self._problem.reason)
        else:
            log.warning(
                "the database is away, and is tried again until it answers; answers go on, records wait: %s",
                self._problem.reason,
            )


def prepare_schema(connection: Connection) -> None:
    """Refuse what is not ours or newer, and bring an older schema to this version.

    Raises StartError, MigrationFailed, sqlalchemy.exc.SQLAlchemyError.
    """
    with answer_within(LOOK_SECONDS):
        revision = refuse_foreign_schema(connection)
    if revision != newest_revision():
        importlib.import_module("mistral_api.database.migration").migrate_to(connection, newest_revision())


def refuse_foreign_schema(connection: Connection) -> str | None:
    """Refuse tables of another program, and a schema of a newer version; return the revision of ours, None without one.

    Raises StartError, SQLAlchemyError.
    """
    require_own_tables(connection)
    return refuse_newer(connection)


def require_current_schema(connection: Connection) -> None:
    """Refuse a database whose schema is not that of this version. Raises StartError, SQLAlchemyError."""
    revision, newest = refuse_foreign_schema(connection), newest_revision()
    if revision != newest:
        found = "does not have our tables yet" if revision is None else f"has an older schema (revision {revision})"
        raise StartError(
            f"DATABASE_URL: the database {shown_address(connection.engine.url)} {found}, and this version works with "
            f"revision {newest}: start the server once, or run '{installed_command('flask db upgrade')}'."
        )


def unusable(error: Exception) -> StartError:
    """Return the error that ends a start, or a command, whose database cannot be used: one sentence."""
    return StartError(f"DATABASE_URL: {unusable_sentence(error)}")
