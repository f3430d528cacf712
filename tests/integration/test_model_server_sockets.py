"""How a model server is connected to: by TLS, by a Unix socket, at each address of its name."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import closing
from pathlib import Path

import certifi
import pytest

from mistral_api.upstream.connection_errors import NotConnected, Silence
from mistral_api.upstream.connections import ModelServerConnections, ModelServerRequest
from mistral_api.upstream.server_address import ServerAddress
from tests.support.certificates import make_certificate
from tests.support.model_server_requests import (
    CHUNKED,
    Run,
    answer_all,
    ask,
    ask_several,
    cancelled_after,
    connections_to,
)
from tests.support.raw_engine import raw_engine, read_request


def test_tls_passes_everything_that_a_plain_socket_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = make_certificate(tmp_path, "localhost")
    monkeypatch.setattr(certifi, "where", lambda: str(path))
    body = b"x" * (1 << 20)

    def echo(connection: socket.socket) -> None:
        while request := read_request(connection):
            got = request.partition(b"\r\n\r\n")[2]
            connection.sendall(CHUNKED + b"3\r\none\r\n")
            time.sleep(0.05)
            connection.sendall(b"%x\r\n" % len(got) + got + b"\r\n0\r\n\r\n")

    def ask_twice() -> bytes:
        return ask(connections, ModelServerRequest("POST", "/x", body, {})) + ask(connections)

    listener = socket.create_server(("127.0.0.1", 0))
    with (
        raw_engine(echo, listener, context) as engine,
        closing(connections_to(engine, "https", "localhost")) as connections,
    ):
        assert run(ask_twice) == b"one" + body + b"one{}"
        assert engine.accepted == 1


@pytest.mark.parametrize("speaks", ["silence", "then-cancelled", "closes"])
def test_tls_handshake_that_does_not_end_is_a_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: str
) -> None:
    def serve(connection: socket.socket) -> None:
        if speaks != "closes":
            engine.released.wait(10)

    with raw_engine(serve) as engine, closing(connections_to(engine, "https", "localhost")) as connections:
        if speaks == "then-cancelled":
            with pytest.raises(OSError, match="EOF"):
                run(cancelled_after(0.1, lambda call: ask(connections, call=call)))
            return
        with pytest.raises((Silence, OSError)):
            run(lambda: ask(connections, deadlines=(0.2, 5.0)))


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python for Windows")
def test_unix_socket_is_connected_to_in_place_of_a_host(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    with (
        raw_engine(answer_all, listener) as engine,
        closing(ModelServerConnections("http://localhost", 8, path)) as unix,
    ):
        assert run(lambda: ask_several(unix, 2)) == b"okok"
        assert engine.accepted == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python for Windows")
def test_unix_socket_whose_queue_is_full_is_tried_until_the_deadline(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        closing(ModelServerConnections("http://localhost", 8, path)) as unix,
    ):
        listener.bind(path)
        listener.listen(0)
        waits = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waits:
            each.setblocking(False)
            each.connect_ex(path)
        with pytest.raises(NotConnected) as refused:
            run(lambda: ask(unix, deadlines=(0.1, 5.0)))
        for each in waits:
            each.close()
    assert isinstance(refused.value.__cause__, TimeoutError)


def test_each_address_of_a_name_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_engine(answer_all) as engine, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))

        def look_up(host: str, _port: int, *, type: int, flags: int = 0) -> list[object]:
            if flags:
                raise socket.gaierror("no address")
            assert host == "engine.example"
            return [
                (socket.AF_INET, type, 0, "", ("127.0.0.1", each)) for each in (nobody.getsockname()[1], engine.port)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with closing(connections_to(engine, host="engine.example")) as connections:
            assert run(lambda: ask(connections)) == b"ok"


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "prefix"),
    [
        ("http://gpu", "gpu", 80, "gpu", ""),
        ("https://GPU:443/a/b/", "gpu", 443, "gpu", "/a/b"),
        ("http://[::1]:8000", "::1", 8000, "[::1]:8000", ""),
        ("http://[fe80::1%25eth0]", "fe80::1%eth0", 80, "[fe80::1]", ""),
        ("http://bücher.example/ä", "bücher.example", 80, "xn--bcher-kva.example", "/%C3%A4"),
        ("http://Ann:word@gpu:1/x%20y", "gpu", 1, "gpu:1", "/x%20y"),
    ],
)
def test_url_names_host_port_and_prefix(url: str, host: str, port: int, authority: str, prefix: str) -> None:
    address = ServerAddress.of(url)
    assert (address.host, address.port, address.authority, address.prefix) == (host, port, authority, prefix)
    assert "word" not in repr(address)
