"""Whether a client has left, by the socket that gunicorn lets the application see."""

from __future__ import annotations

import socket

from mistral_api.web.client_connection import asks_whether_client_left


def test_client_has_left_once_its_socket_is_closed() -> None:
    ours, client = socket.socketpair()
    with ours:
        asks = asks_whether_client_left({"gunicorn.socket": ours})
        assert asks is not None
        assert not asks()
        client.sendall(b"POST / HTTP/1.1")
        assert not asks()
        assert ours.recv(4) == b"POST"  # nothing was taken from it
        ours.recv(100)
        client.close()
        assert asks()


def test_socket_that_the_server_has_closed_counts_as_left() -> None:
    ours, client = socket.socketpair()
    with client:
        asks = asks_whether_client_left({"gunicorn.socket": ours})
        ours.close()
        assert asks is not None
        assert asks()


def test_waitress_is_asked_and_others_cannot_be() -> None:
    asks = asks_whether_client_left({"waitress.client_disconnected": lambda: True})
    assert asks is not None
    assert asks()
    assert asks_whether_client_left({}) is None
