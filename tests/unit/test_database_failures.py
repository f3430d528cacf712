"""What a failure of PostgreSQL says: which database, why in one line, and whether only its operator can mend it."""

from __future__ import annotations

import socketserver
import struct
import threading

import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from mistral_api.database.address import name_address_in_errors
from mistral_api.database.engine import engine_options
from mistral_api.database.errors import error_message, is_final, unusable_sentence
from mistral_api.event_loop.blocking import told_of_blocking
from mistral_api.settings import Settings

SERVER = 'connection to server at "db.example.net" (192.0.2.7), port 5432 failed: '


def _failure(message: str) -> OperationalError:
    """Return the error that an engine raises when it cannot connect."""
    engine = create_engine("postgresql+psycopg2://ann:geheim@db.example.net/mistral")
    name_address_in_errors(engine)

    def connect() -> None:
        raise psycopg2.OperationalError(message)

    failing = create_engine(engine.url, creator=connect)
    name_address_in_errors(failing)
    with pytest.raises(OperationalError) as raised:
        failing.connect()
    return raised.value


@pytest.mark.parametrize(
    ("message", "reason", "final"),
    [
        (f"{SERVER}Connection refused\n\tIs the server running?", "Connection refused", False),
        ('could not translate host name "db.example.net" to address: x', "could not translate host name", False),
        ("PostgreSQL did not answer within 5 s", "PostgreSQL did not answer within 5 s", False),
        (f"{SERVER}FATAL:  the database system is starting up", "the database system is starting up", False),
        (f"{SERVER}FATAL:  sorry, too many clients already", "sorry, too many clients already", False),
        (f"{SERVER}server does not support SSL, but SSL was required", "server does not support SSL", False),
        ("SSL error: certificate verify failed", "SSL error: certificate verify failed", False),
        (f'{SERVER}FATAL:  password authentication failed for user "ann"', "password authentication failed", True),
        (f"{SERVER}fe_sendauth: no password supplied", "fe_sendauth: no password supplied", True),
        (f'{SERVER}FATAL:  database "mistral" does not exist', 'database "mistral" does not exist', True),
        (f'{SERVER}FATAL:  role "ann" does not exist', 'role "ann" does not exist', True),
        (f'{SERVER}FATAL:  permission denied for database "mistral"', "permission denied for database", True),
        (f'{SERVER}FATAL:  no pg_hba.conf entry for host "192.0.2.1", no encryption', "no pg_hba.conf entry", True),
        ('invalid sslmode value: "sometimes"', "invalid sslmode value", True),
        # The first address of a host refuses, the second one answers.
        (
            f'{SERVER}Connection refused\n\tIs it running?\n{SERVER}FATAL:  role "ann" does not exist',
            'role "ann"',
            True,
        ),
    ],
)
def test_failure_names_the_database_and_says_whether_waiting_helps(message: str, reason: str, final: bool) -> None:
    failure = _failure(message)
    assert error_message(failure).startswith(f"db.example.net:5432/mistral: {reason}")
    assert unusable_sentence(failure).startswith(f"the database db.example.net:5432/mistral cannot be used: {reason}")
    assert is_final(failure) is final
    assert "geheim" not in error_message(failure)
    assert "\n" not in unusable_sentence(failure)


class _GermanServer(socketserver.StreamRequestHandler):
    """Refuses each connection as a PostgreSQL does whose messages are in Latin-1 (protocol 3, ``ErrorResponse``)."""

    def handle(self) -> None:
        (length,) = struct.unpack("!I", self.rfile.read(4))
        self.rfile.read(length - 4)
        fields = b"".join(
            each + b"\0" for each in (b"SFATAL", b"VFATAL", b"C28P01", "MKennwort f\xfcr Zo\xeb".encode("latin-1"))
        )
        self.wfile.write(b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0")


def _refused_connection() -> OperationalError:
    """Return what is raised where such a server refuses a connection."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _GermanServer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"postgresql+psycopg2://ann:geheim@127.0.0.1:{server.server_address[1]}/m?sslmode=disable"
        engine = create_engine(url, **engine_options(Settings(), url))
        name_address_in_errors(engine)
        with pytest.raises(OperationalError) as raised:
            engine.connect()
        server.shutdown()
        thread.join()
    return raised.value


def test_refusal_in_another_encoding_is_a_failure_of_the_database() -> None:
    assert "Kennwort f" in error_message(_refused_connection())


def test_a_thread_that_waits_for_the_database_says_that_it_blocks() -> None:
    told: list[bool] = []
    with told_of_blocking(told.append):
        _refused_connection()
    assert told
    assert told == [True, False] * (len(told) // 2)
