"""The check of PostgreSQL: reachable, its version and speed, its schema, our rights, and whether its clock is ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.address import shown_address
from mistral_api.database.engine import engine_options, prepare_connections
from mistral_api.database.errors import error_message
from mistral_api.database.ownership import require_own_tables
from mistral_api.database.revisions import all_revisions, read_revision
from mistral_api.database.tables import table_names
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.embedded.postgres import running_embedded_postgres
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.system.command_names import project_command
from mistral_api.transfer.requirements import OLDEST_POSTGRES

PINGS = 3
# Beyond these a person notices: each read of history waits for one round trip, and expiry times are off.
SLOW_MS = 500.0
CLOCK_SECONDS = 5.0
_START = f"start the server once: {project_command('serve')}"
_SERVER = text(
    "SELECT CAST(current_setting('server_version_num') AS int), current_setting('server_version'), "
    "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
)
# Whether new tables can be made, whether rows can be written at all, and which tables we may not write.
_RIGHTS = text(
    "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates, "
    "pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only"
)
_LOCKED_TABLES = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL "
    "AND NOT has_table_privilege(to_regclass(quote_ident(name)), 'SELECT, INSERT, UPDATE, DELETE')"
)


def check_database(settings: Settings) -> Iterator[Finding]:
    """Connect to the database of the settings, and look at it. An embedded one that does not run is not started."""
    try:
        url = settings.database_url or running_embedded_postgres(settings.data_dir)
    except StartError as error:
        yield failure("database", str(error))
        return
    if url is None:
        yield ok("database", f"embedded PostgreSQL in '{settings.data_dir}', which does not run now")
        return
    engine = _open(settings, url)
    place = shown_address(engine.url)
    try:
        with engine.connect() as connection:
            yield from _look(connection, place)
    except (SQLAlchemyError, StartError) as error:
        line = str(error) if isinstance(error, StartError) else error_message(error)
        yield failure("database", line, "mend DATABASE_URL, or what it leads to; answers go on meanwhile")
    finally:
        engine.dispose()


def _open(settings: Settings, url: str) -> Engine:
    """Return an engine of one connection, with the deadlines of all our connections."""
    engine = create_engine(url, **engine_options(settings, url) | {"pool_size": 1})
    prepare_connections(engine, settings)
    return engine


def _look(connection: Connection, place: str) -> Iterator[Finding]:
    began = time.time()
    version, name, clock = connection.execute(_SERVER).one()
    difference = clock - (began + time.time()) / 2
    yield _version(place, version, name, _latency_ms(connection))
    yield from _schema(connection)
    yield from _rights(connection)
    yield _clock(difference)


def _latency_ms(connection: Connection) -> float:
    """Return the median of a few round trips in milliseconds."""
    times = []
    for _ in range(PINGS):
        began = time.monotonic()
        connection.execute(text("SELECT 1"))
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


def _version(place: str, version: int, name: str, latency_ms: float) -> Finding:
    line = f"{place}: PostgreSQL {name}, a round trip takes {latency_ms:.1f} ms"
    if version // 10_000 < OLDEST_POSTGRES:
        return failure("database", line, f"PostgreSQL {OLDEST_POSTGRES} or newer is needed")
    if latency_ms > SLOW_MS:
        return warning("database", line, "answers do not wait for it, but reading history does: choose a nearer one")
    return ok("database", line)


def _schema(connection: Connection) -> Iterator[Finding]:
    """Compare the schema with what this version works with. Raises StartError for tables of another program."""
    require_own_tables(connection)
    revision, known = read_revision(connection), all_revisions()
    if revision == known[0]:
        yield ok("schema", f"revision {revision}, as this version needs it")
    elif revision is None:
        yield warning("schema", "none yet; the first start makes the tables", _START)
    elif revision in known:
        yield warning("schema", f"revision {revision}, and this version needs {known[0]}", _START)
    else:
        yield failure(
            "schema", f"revision {revision} is of a newer version; this one knows {known[0]}", "upgrade this program"
        )


def _rights(connection: Connection) -> Iterator[Finding]:
    creates, read_only = connection.execute(_RIGHTS).one()
    locked = list(connection.scalars(_LOCKED_TABLES, {"names": list(table_names())}))
    if read_only:
        yield failure("rights", "the database takes no writes: records wait in the journal", "use the primary server")
    elif locked:
        yield failure("rights", f"not all of {', '.join(locked)} may be written", "GRANT ALL on them to the role")
    elif not creates:
        yield warning("rights", "rows can be written, and no tables made", "the next version may need a migration")
    else:
        yield ok("rights", "tables can be made and written")


def _clock(difference: float) -> Finding:
    if abs(difference) > CLOCK_SECONDS:
        ahead = "behind" if difference > 0 else "ahead of"
        line = f"this machine's clock is {abs(difference):.0f} s {ahead} the database's"
        return warning("clock", line, "set it by NTP: timedatectl set-ntp true")
    return ok("clock", f"agrees with the database's to {abs(difference):.1f} s")
