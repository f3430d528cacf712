"""The text of DATABASE_URL: what in it is the password, and what the host, however the password is spelled.

In a URL the signs ``@ : / ? # %`` and others of a password are written as ``%40`` and so on (RFC 3986, section 2.1).
Hosting companies print passwords as they are, and people paste them. Such a URL is read as it was meant: the host
begins after the first @ behind which everything is a host, a port, a database and parameters of libpq. The URL that
is returned has every sign escaped, so that SQLAlchemy and libpq read the same; they would take a part of the password
for the host, and show it in an error.

Nothing that is raised here quotes the URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
_SCHEME = "postgresql+psycopg2"
_HIGHEST_PORT = 65535

# One host or several, with ports; the database; the parameters. SQLAlchemy knows several hosts as parameters only.
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s\[\]/:?#@,\\\"'`<>{}|^]+)"
_PLACE = re.compile(
    rf"(?P<hosts>(?:{_HOST}?(?::[^\s/?#@:,]*)?,)*{_HOST}?(?::[^\s/?#@:,]*)?)"
    r"(?:/(?P<database>[^/?#@:]*))?(?:\?(?P<query>[^#]*))?"
)
# A place without a user whose parameters may have an @: behind a host and a port that is a number.
_PLAIN_PLACE = re.compile(rf"{_HOST}?(?::[0-9]+)?(?:/[^/?#@:]*)?\?[^#]*$")
_ONE_HOST = re.compile(rf"(?P<host>{_HOST}?)(?::(?P<port>.*))?")

# Parameters of libpq of PostgreSQL 18 (its documentation, "Parameter Key Words").
_PARAMETER_NAMES = (
    "application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation "
    "gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname "
    "load_balance_hosts max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer "
    "oauth_scope options passfile password port replication require_auth requirepeer requiressl scram_client_key "
    "scram_server_key service servicefile ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode "
    "sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni "
    "target_session_attrs tcp_user_timeout user"
)
PARAMETERS = frozenset(_PARAMETER_NAMES.split())
# Those that other programs (Prisma, JDBC, node-postgres) put into a URL. An unknown name may be a part of the password.
_FOREIGN_PARAMETER_NAMES = (
    "schema pgbouncer connection_limit pool_timeout sslaccept ssl prepareThreshold socketTimeout statement_cache_size "
    "uselibpqcompat supa pool_mode"
)
_FOREIGN_PARAMETERS = frozenset(_FOREIGN_PARAMETER_NAMES.split())
# What the examples of many programs have in the place of a host, a port, or a user and password.
_EXAMPLE_HOSTS = frozenset(("hostname", "your-host", "your_host", "yourhost", "<host>", "<hostname>"))
_EXAMPLE_USERS = frozenset((("username", "password"), ("user", "password")))
_EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net")


class BadDatabaseUrl(ValueError):
    """A URL of no database. The message says what is wrong with it, as the second half of a sentence."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a URL as they are written."""

    user: str | None
    password: str | None
    hosts: str
    database: str | None
    query: str | None


def read_database_url(text: str) -> str:
    """Return a URL that SQLAlchemy and libpq read as it is meant. Raises BadDatabaseUrl, a ValueError."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        raise BadDatabaseUrl("it must begin with postgres:// or postgresql://, and name a host")
    parts = _split(rest)
    _refuse_example(parts)
    hosts = [_read_host(each) for each in parts.hosts.split(",")]
    query = _read_query(parts.query)
    user, password = _decoded("user", parts.user), _decoded("password", parts.password)
    query, hidden = _without_password(query)
    return f"{_SCHEME}://{_userinfo(user, hidden or password)}{_tail(hosts, parts.database, query, parts.query)}"


def _split(rest: str) -> _Parts:
    """Find the @ that the host begins after: the first one behind which all is well. Raises BadDatabaseUrl."""
    without_user = [] if "@" in rest and not _PLAIN_PLACE.match(rest) else [-1]
    for place in (*without_user, *_userinfo_ends(rest)):
        if (found := _PLACE.fullmatch(rest, place + 1)) and _has_known_parameters(found["query"]):
            if place < 0:
                return _Parts(None, None, found["hosts"], found["database"], found["query"])
            user, colon, password = rest[:place].partition(":")
            return _Parts(user, password if colon else None, found["hosts"], found["database"], found["query"])
    raise BadDatabaseUrl(_reason(rest))


def _userinfo_ends(rest: str) -> list[int]:
    """Return the places of every @ that a user and a password may end at. A user has none of the signs / ? #."""
    return [
        match.start()
        for match in re.finditer("@", rest)
        if not re.search(r"[/?#]", rest[: match.start()].partition(":")[0])
    ]


def _has_known_parameters(query: str | None) -> bool:
    names = (each.partition("=")[0] for each in (query or "").split("&") if each)
    return all(name in PARAMETERS for name in names)


def _reason(rest: str) -> str:
    """Say what is wrong with a URL of which no reading is whole."""
    found = _PLACE.fullmatch(rest, rest.rfind("@") + 1)
    if found is None:
        return (
            "what stands behind the last @ is no host, port and database; in a user or password write "
            "@ as %40, : as %3A, / as %2F, # as %23, ? as %3F, % as %25"
        )
    names = [name for name, _ in parse_qsl(found["query"] or "", keep_blank_values=True)]
    foreign = next((name for name in names if name in _FOREIGN_PARAMETERS), None)
    shown = f"the parameter '{foreign}'" if foreign else "one of its parameters, behind the ?,"
    return f"{shown} is none of PostgreSQL's, such as sslmode or connect_timeout"


def _refuse_example(parts: _Parts) -> None:
    """Refuse the URL of an example that nobody has put their own host into."""
    host, _, port = parts.hosts.lower().partition(":")
    named = (parts.user or "").lower(), (parts.password or "").lower()
    reserved = host.endswith(_EXAMPLE_DOMAINS) or host == "host"
    if host in _EXAMPLE_HOSTS or port == "port" or (named in _EXAMPLE_USERS and reserved):
        raise BadDatabaseUrl(
            "it still is the template: put in the user, password, host, port and database that your hosting company "
            "gives you, or remove the line to use the embedded PostgreSQL"
        )


def _read_host(text: str) -> tuple[str, str]:
    """Return a host and its port, which may both be empty. Raises BadDatabaseUrl."""
    found = _ONE_HOST.fullmatch(text)
    if found is None:
        raise BadDatabaseUrl("its host is no name and no IP address")
    port = found["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) <= _HIGHEST_PORT):
        raise BadDatabaseUrl(
            f"its port is no number from 1 to {_HIGHEST_PORT} (or the @ between the password and the host is missing)"
        )
    return found["host"], port or ""


def _read_query(query: str | None) -> list[tuple[str, str]]:
    """Return the parameters. Raises BadDatabaseUrl for a port that is none."""
    read = parse_qsl(query or "", keep_blank_values=True)
    ports = [port for name, value in read if name == "port" for port in value.split(",") if port]
    if not all(port.isascii() and port.isdigit() and 0 < int(port) <= _HIGHEST_PORT for port in ports):
        raise BadDatabaseUrl(f"its port is no number from 1 to {_HIGHEST_PORT}")
    return read


def _without_password(query: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str | None]:
    """Return the parameters without a password, and that: what shows a URL hides only the usual place of one."""
    found = next((value for name, value in query if name == "password"), None)
    return [each for each in query if each[0] != "password"], found


def _decoded(what: str, text: str | None) -> str | None:
    """Return a user or password whose %40 and the like have been replaced. A % before anything else stands for itself.

    Raises BadDatabaseUrl.
    """
    if text is None:
        return None
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadDatabaseUrl(f"in its {what} a % is meant as itself, and must be written as %25") from None
    if "\0" in decoded:
        raise BadDatabaseUrl(f"in its {what} a % is meant as itself, and must be written as %25")
    return decoded


def _userinfo(user: str | None, password: str | None) -> str:
    if user is None and password is None:
        return ""
    return quote(user or "", safe="") + ("" if password is None else ":" + quote(password, safe="")) + "@"


def _tail(hosts: list[tuple[str, str]], database: str | None, query: list[tuple[str, str]], written: str | None) -> str:
    """Return the URL from the host on. Several hosts become parameters; nothing else is written anew without need."""
    place = "" if database is None else f"/{database}"
    if len(hosts) > 1:
        names, ports = ",".join(host.strip("[]") for host, _ in hosts), ",".join(port for _, port in hosts)
        query = [("host", names), ("port", ports), *query]
        return f"{place or '/'}?{urlencode(query)}"
    ((host, port),) = hosts
    unchanged = written is None or len(query) == len(parse_qsl(written, keep_blank_values=True))
    asked = written if unchanged else urlencode(query)
    asked = (asked or "").replace("@", "%40")  # SQLAlchemy would take it for the end of a password
    return f"{host}{f':{port}' if port else ''}{place}{f'?{asked}' if asked else ''}"
