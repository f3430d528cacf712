"""The role that the application connects as: it owns its database, and is no superuser.

A superuser of PostgreSQL can read files and run programs as PostgreSQL's account (COPY … PROGRAM), which an injected
statement must not be able to do. Clusters of older versions, where the application was the superuser, are changed here:
the role is made, and given the database and everything in it that is no part of an extension.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from mistral_api.embedded.postgres.cluster import APPLICATION_ROLE, DATABASE, SUPERUSER, Cluster

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 10
# A server of an older version may hold locks on the tables.
_OPTIONS = "-c lock_timeout=5000"
_RIGHTS = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")

# What stands alone of what the superuser owns: the sequence of a column follows its table.
_HAND_OVER = """
    WITH owned AS (
        SELECT 'SCHEMA' AS kind, quote_ident(nspname) AS name, nspowner AS owner, CAST('pg_namespace' AS regclass)
            AS catalogue, oid, oid AS schema FROM pg_namespace
        UNION ALL
        SELECT 'TABLE', CAST(CAST(oid AS regclass) AS text), relowner, 'pg_class', oid, relnamespace FROM pg_class
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f') OR relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend
                WHERE classid = CAST('pg_class' AS regclass) AND objid = pg_class.oid AND deptype IN ('a', 'i'))
        UNION ALL
        SELECT 'ROUTINE', CAST(CAST(oid AS regprocedure) AS text), proowner, 'pg_proc', oid, pronamespace FROM pg_proc
        UNION ALL
        SELECT 'TYPE', CAST(CAST(oid AS regtype) AS text), typowner, 'pg_type', oid, typnamespace FROM pg_type
            WHERE typtype IN ('d', 'e')
    )
    SELECT format('ALTER %%s %%s OWNER TO %%I', kind, name, %(role)s)
    FROM owned JOIN pg_namespace AS n ON n.oid = owned.schema JOIN pg_roles AS r ON r.oid = owned.owner
    WHERE r.rolname = %(superuser)s AND nspname <> 'information_schema' AND nspname !~ '^pg_'
        AND NOT EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = owned.catalogue AND d.objid = owned.oid AND d.deptype = 'e')
"""
# By these words of the server (in English: it runs with LC_ALL=C) the role or the database is not as it should be.
_NOT_SET_UP = ("password authentication failed", "does not exist", "is not permitted to log in")


def ensure_application_database(cluster: Cluster) -> None:
    """Have the role, its password and its database there. Raises psycopg2.OperationalError while nobody is let in."""
    if _is_set_up(cluster):
        return
    log.info("the embedded PostgreSQL gets a role for the application, which is no superuser")
    password = secrets.token_urlsafe(32)
    with _superuser(cluster, "postgres") as cursor:
        _make_role(cursor, password)
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
        if cursor.fetchone() is None:
            names = sql.Identifier(DATABASE), sql.Identifier(APPLICATION_ROLE)
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
    with _superuser(cluster, DATABASE) as cursor:
        _hand_over(cursor)
    cluster.write_application_password(password)
    psycopg2.connect(libpq_dsn(cluster.url()), connect_timeout=CONNECT_TIMEOUT_SECONDS).close()


def _is_set_up(cluster: Cluster) -> bool:
    """Whether the application's role is let into its database. Raises psycopg2.OperationalError while nobody is."""
    if not cluster.has_application_password:
        return False
    try:
        psycopg2.connect(libpq_dsn(cluster.url()), connect_timeout=CONNECT_TIMEOUT_SECONDS).close()
    except psycopg2.OperationalError as error:
        if any(words in str(error) for words in _NOT_SET_UP):
            return False
        raise
    return True


@contextlib.contextmanager
def _superuser(cluster: Cluster, database: str) -> Iterator[psycopg2.extensions.cursor]:
    """Give a cursor of the superuser, each of whose statements is its own transaction."""
    dsn = libpq_dsn(cluster.superuser_url(database))
    connection = psycopg2.connect(dsn, connect_timeout=CONNECT_TIMEOUT_SECONDS, options=_OPTIONS)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _make_role(cursor: psycopg2.extensions.cursor, password: str) -> None:
    """Make the role, or give it this password and these rights alone. The server gets no more than a SCRAM verifier."""
    verifier = encrypt_password(password, APPLICATION_ROLE, cursor.connection, "scram-sha-256")
    cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (APPLICATION_ROLE,))
    verb = sql.SQL("CREATE" if cursor.fetchone() is None else "ALTER")
    role = sql.Identifier(APPLICATION_ROLE)
    cursor.execute(sql.SQL("{} ROLE {} {} PASSWORD {}").format(verb, role, _RIGHTS, sql.Literal(verifier)))


def _hand_over(cursor: psycopg2.extensions.cursor) -> None:
    """Give the role the database, and what the superuser has in it: all in one transaction."""
    cursor.execute(_HAND_OVER, {"superuser": SUPERUSER, "role": APPLICATION_ROLE})
    changes = [sql.SQL(statement) for (statement,) in cursor.fetchall()]
    database = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
        sql.Identifier(DATABASE), sql.Identifier(APPLICATION_ROLE)
    )
    cursor.execute(sql.SQL("; ").join([database, *changes]))


def libpq_dsn(url: str) -> str:
    """Return a URL of SQLAlchemy as libpq reads it."""
    return url.replace("postgresql+psycopg2://", "postgresql://", 1)
