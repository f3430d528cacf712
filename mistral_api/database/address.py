"""Where a database is, as a log, a command and ``/health`` name it: host, port and name, and nothing that is secret.

libpq names the host in some of its messages only, and psycopg2 drops it from others. So every error of an engine gets
the address of its engine, which ``database.errors`` puts before the message.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import ExceptionContext, make_url

from mistral_api.database.errors import note_address, sqlstate

# libpq's own, where the URL names none (its documentation, "Parameter Key Words").
DEFAULT_PORT = 5432
# A server that a failover has made a standby takes no writes any more. The next connection may lead to another one.
_READ_ONLY = "25006"


def shown_address(url: URL | str) -> str:
    """Return ``host:port/database``. Several hosts are separated by commas; a folder is that of a Unix socket."""
    parsed = make_url(url)
    hosts = _several(parsed.host or parsed.query.get("host") or os.environ.get("PGHOST") or "localhost")
    ports = _several(str(parsed.port or "") or parsed.query.get("port") or os.environ.get("PGPORT") or "")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    shown_hosts = ",".join(_with_port(host, port) for host, port in zip(hosts, ports, strict=True))
    return f"{shown_hosts}/{parsed.database or parsed.query.get('dbname') or parsed.username or ''}"


def _several(value: str | Sequence[str]) -> list[str]:
    """Return each of several hosts or ports, which are separated by commas or stand one in each parameter."""
    return [part for each in ([value] if isinstance(value, str) else value) for part in each.split(",")]


def _with_port(host: str, port: str) -> str:
    if host.count(":") == 1:  # SQLAlchemy takes a port with each of several hosts
        return host
    return f"[{host}]:{port or DEFAULT_PORT}" if ":" in host else f"{host}:{port or DEFAULT_PORT}"


def name_address_in_errors(engine: Engine) -> None:
    """Have every error of an engine name the database that it is of, and give up connections to a standby."""
    address = shown_address(engine.url)

    @event.listens_for(engine, "handle_error")
    def _note(context: ExceptionContext) -> None:
        note_address(context.original_exception, address)
        if isinstance(context.original_exception, Exception) and sqlstate(context.original_exception) == _READ_ONLY:
            context.is_disconnect = True
