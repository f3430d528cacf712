"""API processes at one socket leave connections to whoever has fewer, for a moment, and never for ever."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mistral_api.serving.connection_shares import ConnectionShares, new_shares_file
from tests.support.web_servers import get, response_of, running_web_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")


@pytest.fixture
def shares() -> Iterator[list[ConnectionShares]]:
    """What three processes see."""
    number = new_shares_file(3)
    yield [ConnectionShares(number, own) for own in range(3)]
    os.close(number)


def test_process_with_more_connections_than_another_has_the_most(shares: list[ConnectionShares]) -> None:
    one, two, three = shares
    one.note(1)
    two.note(1)
    assert not one.has_most  # the third one is not there
    three.note(0)
    assert [each.has_most for each in shares] == [True, True, False]
    one.note(0)
    assert not one.has_most


def test_nothing_is_left_to_a_process_that_has_ended(shares: list[ConnectionShares]) -> None:
    one, two, three = shares
    one.note(5)
    two.note(0)
    assert one.has_most
    one.note_absent(1)  # the first process says so of one that was killed
    assert not one.has_most
    three.note(2)
    assert one.has_most
    three.note_absent()
    assert not one.has_most


def test_server_with_the_most_accepts_what_nobody_else_does(shares: list[ConnectionShares], tmp_path: Path) -> None:
    """The other process hangs: it has no connection, and accepts none."""
    shares[1].note(0)
    with running_web_server(tmp_path, shares=shares[0]) as server, ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(server.connect(get("/health/live").replace(b"close", b"keep-alive")))
            assert response_of(connection)[0] == 200
        assert len(server.connections) == 8
        assert shares[0].has_most
    shares[1].note(100)
    assert not shares[0].has_most
