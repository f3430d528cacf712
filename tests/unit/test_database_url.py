"""DATABASE_URL is read as it was meant, whatever its password holds, and is refused without a piece of it."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import URL, make_url

from mistral_api.database.address import shown_address
from mistral_api.database_url import BadDatabaseUrl, read_database_url

PASSWORDS = [
    "a@b",
    "a:b",
    "a/b",
    "a#b",
    "a?b",
    "a%b",
    "a%",
    "a@b:1/c?d#e",
    "[a]",
    "a b",
    "a'\"b",
    "pässwörd",
    "a@b@c",
    "@",
    "",
]
PLACES = [
    ("db.example.net", "db.example.net", None, None),
    ("db.example.net:5433/mistral?sslmode=require", "db.example.net", 5433, "mistral"),
    ("[::1]:5432/db", "::1", 5432, "db"),
    ("/db?host=/run/postgresql", None, None, "db"),
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("place", PLACES)
def test_password_is_read_as_it_was_pasted(
    password: str, place: tuple[str, str | None, int | None, str | None]
) -> None:
    written, host, port, database = place
    read = make_url(read_database_url(f"postgres://ann:{password}@{written}"))
    assert (read.username, read.password) == ("ann", password)
    assert (read.host, read.port, read.database) == (host, port, database)


@pytest.mark.parametrize("password", PASSWORDS)
def test_escaped_password_is_read_as_it_was_meant(password: str) -> None:
    escaped = URL.create("postgresql", "ann", password, "host", database="db").render_as_string(hide_password=False)
    assert make_url(read_database_url(escaped)).password == password


@pytest.mark.parametrize(
    ("url", "user", "password", "hosts"),
    [
        ("user@server:pw@host/db", "user@server", "pw", "host:5432"),
        ("ann@host/db?password=a@b&sslmode=require", "ann", "a@b", "host:5432"),
        ("ann:pw@one:5432,two:5433/db", "ann", "pw", "one:5432,two:5433"),
        ("ann:pw@one,[::1]:5433/db", "ann", "pw", "one:5432,[::1]:5433"),
        ("host:5433/db?application_name=a@b", None, None, "host:5433"),
        ("ann:pw@host/db?application_name=a@b", "ann", "pw", "host:5432"),
    ],
)  # fmt: skip
def test_user_password_and_hosts_are_told_apart(url: str, user: str, password: str, hosts: str) -> None:
    read = make_url(read_database_url(f"postgresql://{url}"))
    assert (read.username, read.password) == (user, password)
    assert shown_address(read) == f"{hosts}/db"
    assert "password" not in read.query


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://ann:geheim@host/db", "it must begin with postgres://"),
        ("ann:geheim@host/db", "it must begin with postgres://"),
        ("postgres://ann:geheim@host:port/db", "still is the template"),
        ("postgres://ann:geheim@host:54x2/db", "its port is no number from 1 to 65535"),
        ("postgres://ann:geheim@host:/db", "its port is no number"),
        ("postgres://ann:geheim@host:99999/db", "its port is no number"),
        ("postgres://ann:geheim@host/db?port=x", "its port is no number"),
        ("postgres://ann:geheim", "its port is no number"),
        ("postgres://ann:geheim@my host/db", "write @ as %40"),
        ("postgres://ann:geheim@host/a/b", "write @ as %40"),
        ("postgres://ann:geheim@[::1/db", "write @ as %40"),
        ("postgres://ann:%ffgeheim@host/db", "must be written as %25"),
        ("postgres://ann:%00geheim@host/db", "must be written as %25"),
        ("postgres://ann:pw@host/db?geheim=1", "one of its parameters"),
        ("postgres://ann:geheim@host/db?pgbouncer=true", "the parameter 'pgbouncer' is none of PostgreSQL's"),
        ("postgresql://username:password@hostname:port/database_name", "still is the template"),
        ("postgres://user:password@db.example.com:5432/mistral?sslmode=require", "still is the template"),
    ],
)
def test_url_of_no_database_is_refused_with_a_reason_that_does_not_quote_it(url: str, reason: str) -> None:
    with pytest.raises(BadDatabaseUrl) as refused:
        read_database_url(url)
    assert reason in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert "\n" not in str(refused.value)
