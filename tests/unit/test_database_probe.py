"""The check of PostgreSQL for ``/health``."""

from __future__ import annotations

import socket
import time

import pytest
from sqlalchemy import create_engine

from mistral_api.database import probe
from mistral_api.database.probe import DatabaseProbe


def test_a_database_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        checked = DatabaseProbe(create_engine(f"postgresql+psycopg2://nobody@127.0.0.1:{port}/nothing"))
        monkeypatch.setattr(probe, "CHECK_TIMEOUT_SECONDS", 0.05)
        assert checked.check()["status"] == "unavailable"
        # Whoever waited for it again would do so for minutes.
        monkeypatch.setattr(probe, "CHECK_TIMEOUT_SECONDS", 300.0)
        began = time.monotonic()
        assert {checked.check()["status"] for _ in range(100)} == {"unavailable"}
        assert time.monotonic() - began < 60
        checked.close()
